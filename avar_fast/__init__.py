"""Training vision-language models that look: AVAR on fused attention."""
