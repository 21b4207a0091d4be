"""The certification cases as a user of MindSpore writes them, and how they are measured.

A function is named after its case; where users have several ways to write it, ``case__way`` is another one. They are
plain functions on lines of their own, because MindSpore reads their source.
"""
