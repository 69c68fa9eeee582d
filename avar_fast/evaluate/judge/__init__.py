"""The judge: a language model at an endpoint. It judges answers that a rule does not score as
right."""
