"""Studies of the Visual Attention Score: ``python -m avar_fast.studies``."""
