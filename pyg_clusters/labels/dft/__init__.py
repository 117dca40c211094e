"""Density functional theory by PySCF: shieldings and what decides on them."""
