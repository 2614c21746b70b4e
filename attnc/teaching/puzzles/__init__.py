"""Fifteen puzzles."""
