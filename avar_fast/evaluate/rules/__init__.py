"""Rules that find the answer in a completion and compare it with the reference. They read only the
text, are deterministic, and take time linear in its length."""
