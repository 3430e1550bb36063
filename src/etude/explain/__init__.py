"""Traces and their pages: every number of a forward pass, for the terminal, for programs and for a projector."""

from .trace import Choice, Operation, Token, Trace, check_length, record

__all__ = ["Choice", "Operation", "Token", "Trace", "check_length", "record"]
