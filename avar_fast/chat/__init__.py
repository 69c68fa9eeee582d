"""Asking endpoints that speak OpenAI's chat protocol: one client for all programs.

``access`` needs no openai; the other modules do, and are imported where an endpoint is asked.
"""
