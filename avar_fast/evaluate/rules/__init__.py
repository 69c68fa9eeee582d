"""Rules that find an answer in a completion and compare it: text alone, deterministic, linear in
its length."""
