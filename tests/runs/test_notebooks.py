"""The parameters of a notebook, and the place of a cell in it."""

import nbformat

from prunebook.runs.notebooks import assigned_parameters, place


def test_a_parameters_cell_that_is_no_python_assigns_nothing():
    cell = nbformat.v4.new_code_cell("a = = 1", metadata={"tags": ["parameters"]})
    assert assigned_parameters(nbformat.v4.new_notebook(cells=[cell])) == set()


def test_all_plain_names_that_tagged_cells_assign_are_parameters():
    v4 = nbformat.v4
    tagged = v4.new_code_cell("a = b = 1\nc: int = 2\nd[0] = 3", metadata={"tags": ["parameters"]})
    notebook = v4.new_notebook(cells=[v4.new_code_cell("e = 1"), tagged])
    assert assigned_parameters(notebook) == {"a", "b", "c"}
    assert place(notebook, 1) == "cell 1"
