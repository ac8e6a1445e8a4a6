"""Breaks the whole system for as long as you like and counts what it kept: ``make crash``.

``script`` plans the faults, ``faults`` does them to the parts of ``system`` and its ``links``,
``stores`` looks at what is stored, ``verdict`` compares and ``report`` says it.
"""
