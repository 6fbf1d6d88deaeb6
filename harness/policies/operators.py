"""The table of mutation operators: what each is called, how much of the budget it deserves, which symptoms favour it.

None of them knows any benchmark: they are the templates of the classical repair literature (GenProg, Kali, PAR, TBar,
Nopol, jMutRepair) and of everyday Python defects.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from harness.policies import (
    operators_calls,
    operators_conditions,
    operators_defects,
    operators_names,
    operators_statements,
    operators_tokens,
)
from harness.policies.operators_view import Change, View


class Operator(NamedTuple):
    """One mutation operator; `weight` is its share when operators take turns, doubled for each of its symptoms."""

    name: str
    weight: float
    changes: Callable[[View], Iterator[Change]]
    symptoms: frozenset[str] = frozenset()


def _operator(name: str, weight: float, changes: Callable[[View], Iterator[Change]], symptoms: str = "") -> Operator:
    return Operator(name, weight, changes, frozenset(symptoms.split()))


OPERATORS: tuple[Operator, ...] = (
    _operator("comparison", 4, operators_tokens.comparison, "timeout IndexError"),
    _operator("off-by-one", 4, operators_tokens.off_by_one, "IndexError RecursionError timeout"),
    _operator("boundary", 1, operators_tokens.boundary, "RecursionError IndexError"),
    _operator("arithmetic", 2, operators_tokens.arithmetic, "timeout ZeroDivisionError TypeError"),
    _operator("assignment", 1, operators_tokens.assignment, "timeout"),
    _operator("logic", 1.5, operators_tokens.logic),
    _operator("sibling", 2, operators_tokens.siblings),
    _operator("swap-operands", 1, operators_tokens.swap_operands, "timeout"),
    _operator("constant", 2, operators_tokens.constants, "timeout RecursionError"),
    _operator("negation", 1.5, operators_tokens.negation),
    _operator("variable", 4, operators_names.variable, "NameError TypeError KeyError"),
    _operator("target", 1, operators_names.target),
    _operator("attribute", 2, operators_names.attribute, "AttributeError"),
    _operator("function-name", 0.5, operators_names.function_name),
    _operator("missing-self", 1, operators_names.missing_self, "NameError AttributeError UnboundLocalError"),
    _operator("expression", 3, operators_names.expression),
    _operator("swap-arguments", 3, operators_calls.swap_arguments, "TypeError RecursionError KeyError"),
    _operator("adjust-argument", 1.5, operators_calls.adjust_argument, "RecursionError IndexError"),
    _operator("drop-wrapper", 1, operators_calls.drop_wrapper, "RecursionError TypeError"),
    _operator("drop-argument", 0.5, operators_calls.drop_argument, "TypeError"),
    _operator("add-argument", 1, operators_calls.add_argument, "TypeError"),
    _operator("add-slice", 1.5, operators_calls.add_slice, "RecursionError IndexError"),
    _operator("add-wrapper", 1, operators_calls.add_wrapper, "TypeError RuntimeError"),
    _operator("clamp", 0.7, operators_calls.clamp),
    _operator("drop-operand", 1, operators_calls.drop_operand),
    _operator("add-operand", 1, operators_calls.add_operand, "timeout"),
    _operator("endless-loop", 2, operators_conditions.endless_loop, "timeout IndexError KeyError"),
    _operator("guard", 1, operators_conditions.guard, "AttributeError TypeError IndexError KeyError"),
    _operator("extend-condition", 1.5, operators_conditions.extend_condition, "ValueError IndexError KeyError"),
    _operator("borrow-condition", 0.5, operators_conditions.borrow_condition),
    _operator("fixed-condition", 0.3, operators_conditions.fixed_condition),
    _operator("null-default", 0.5, operators_conditions.null_default, "KeyError AttributeError"),
    _operator("early-exit", 0.5, operators_conditions.early_exit, "RecursionError ZeroDivisionError IndexError"),
    _operator("jump", 1, operators_conditions.jump),
    _operator("swap-branches", 1, operators_conditions.swap_branches),
    _operator("loop", 0.5, operators_conditions.loop_else),
    _operator("insert-call", 2, operators_statements.insert_call, "RecursionError"),
    _operator("insert-assignment", 1.5, operators_statements.insert_assignment, "timeout"),
    _operator("insert-copy", 0.7, operators_statements.insert_copy),
    _operator("insert-exit", 0.7, operators_statements.insert_exit),
    _operator("missing-return", 1, operators_statements.missing_return),
    _operator("return-value", 2, operators_statements.return_value),
    _operator("delete-statement", 0.4, operators_statements.delete_statement),
    _operator("swap-statements", 0.7, operators_statements.swap_statements, "NameError UnboundLocalError"),
    _operator("indentation", 1, operators_statements.indentation),
    _operator("rebind", 0.7, operators_statements.rebind, "RuntimeError"),
    _operator("mutable-default", 2, operators_defects.mutable_default),
    _operator("default-value", 0.5, operators_defects.default_value),
    _operator("exception-type", 1.5, operators_defects.exception_type, "ValueError KeyError TypeError IndexError"),
    _operator("handler-body", 0.7, operators_defects.handler_body),
    _operator("shared-state", 1, operators_defects.shared_state),
    _operator("lost-constructor", 1, operators_defects.lost_constructor, "AttributeError"),
    _operator("decorator", 0.7, operators_defects.decorator, "TypeError AttributeError"),
    _operator("fresh-copy", 0.7, operators_defects.fresh_copy, "RuntimeError"),
)
