//! The operator: watch, observe, plan, consult, make, apply, report.
