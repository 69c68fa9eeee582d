"""A client for endpoints that speak OpenAI's chat protocol, shared by all programs.

``access`` works without the package openai. The other modules need it, so import them only where
an endpoint is asked.
"""
