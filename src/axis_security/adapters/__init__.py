"""Frameworks: each module translates its framework to the gate and back, and is imported by who uses that framework."""
