"""The cases, family by family: names, inputs and what is special about them, without any framework."""
