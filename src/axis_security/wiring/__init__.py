"""Where the parts meet: the gate that every request passes. Import from its modules."""
