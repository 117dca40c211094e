"""Options of the verbs: dataclasses that Python and the command line share."""
