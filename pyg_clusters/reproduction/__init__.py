"""The tables of published papers, computed anew and set beside them."""
