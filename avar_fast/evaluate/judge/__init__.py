"""A language model behind an endpoint that judges answers which a rule finds not right."""
