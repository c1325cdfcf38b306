"""Chores that every paper shares. Knows no paper by name."""
