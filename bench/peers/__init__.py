"""Servers that the fan-out bench compares with: each does nothing but broadcast, the way its library wants it.

Each is a program of its own, in an environment of its own: nothing here imports the project.
"""
