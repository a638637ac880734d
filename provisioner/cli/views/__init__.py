"""How results read: for people, and as documented, versioned JSON."""
