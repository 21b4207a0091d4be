"""Certification: which derivatives of which operators a framework has right."""
