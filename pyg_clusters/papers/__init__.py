"""Tables, figures and findings of the two papers, reproduced."""
