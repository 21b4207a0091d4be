"""A two-layer perceptron on handwritten digits, as far as it is framework-free.

The images are those of scikit-learn's ``load_digits``: the test part of "Optical Recognition of Handwritten Digits" by
E. Alpaydin and C. Kaynak (UCI Machine Learning Repository, doi:10.24432/C50P49, CC BY 4.0).
"""
