//! Schemas that cannot be derived from the types of a FlashRollout's fields.

/// Schema of an integer or a percentage. The pattern applies to strings and the minimum to
/// integers. A CEL rule would be charged for 20 batches times the longest string of a request,
/// which exceeds the API server's cost limit.
fn int_or_percent(minimum: i32, pattern: &str) -> schemars::Schema {
    schemars::json_schema!({
        "x-kubernetes-int-or-string": true,
        "nullable": true,
        "minimum": minimum,
        "pattern": pattern
    })
}

pub(super) fn budget_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    int_or_percent(0, "^(100|[0-9]{1,2})%$")
}

pub(super) fn size_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    int_or_percent(1, "^(100|[1-9][0-9]?)%$")
}

pub(super) fn share_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "string", "nullable": true, "maxLength": 4, "pattern": "^(100|[0-9]{1,2})%$"
    })
}

/// Schema of an optional enumeration. A pattern gives the valid values, because an `enum` in a
/// schema would exclude null.
fn one_of(pattern: &str) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "nullable": true, "pattern": pattern })
}

pub(super) fn membership_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    one_of("^Frozen$")
}

pub(super) fn on_failure_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    one_of("^(Pause|Abort)$")
}
