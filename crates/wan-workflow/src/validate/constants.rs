//! A constant made what its input declares, as Python's `int`, `float` and `str` would, where that is harmless.

use serde_json::{Number, Value};

use crate::python::{repr, str};
use crate::table::Kind;

/// What is wrong with a constant.
#[derive(Debug, PartialEq)]
pub(super) enum Problem {
    /// It is of another type; why it cannot be converted.
    Type(String),
    /// After conversion it is below the minimum.
    TooSmall { value: Box<Value>, min: Box<Value> },
    /// After conversion it is above the maximum.
    TooBig { value: Box<Value>, max: Box<Value> },
    /// It is not one of the choices.
    NotListed,
}

/// The constant as the input's type, within its range.
pub(super) fn coerce(kind: &Kind, value: &Value, choices: &[String]) -> Result<Value, Problem> {
    match *kind {
        Kind::Int { min, max, .. } => {
            let number = to_int(value).map_err(Problem::Type)?;
            in_range(number, i128::from(min), max.map(i128::from), int_value)
        }
        Kind::Float { min, max, .. } => {
            let number = to_float(value).map_err(Problem::Type)?;
            in_range(number, min, max, float_value)
        }
        Kind::Bool(_) => to_bool(value).map(Value::Bool).map_err(Problem::Type),
        Kind::Text { .. } => match value {
            Value::String(_) | Value::Number(_) | Value::Bool(_) => Ok(Value::String(str(value))),
            _ => Err(Problem::Type("expected text, a number or a boolean".into())),
        },
        Kind::Choice { .. } | Kind::Model(_) => match value.as_str() {
            Some(text) if choices.iter().any(|choice| choice == text) => Ok(value.clone()),
            _ => Err(Problem::NotListed),
        },
        Kind::Image => Ok(value.clone()),
        Kind::Link(name) => {
            Err(Problem::Type(format!("expected a link to a {name} output, [node_id, slot_index]")))
        }
    }
}

fn in_range<T: PartialOrd + Copy>(
    number: T,
    min: T,
    max: Option<T>,
    json: fn(T) -> Value,
) -> Result<Value, Problem> {
    let boxed = |number: T| Box::new(json(number));
    match max {
        _ if number < min => Err(Problem::TooSmall { value: boxed(number), min: boxed(min) }),
        Some(max) if number > max => Err(Problem::TooBig { value: boxed(number), max: boxed(max) }),
        _ => Ok(json(number)),
    }
}

fn int_value(number: i128) -> Value {
    match Number::from_i128(number) {
        Some(number) => number.into(),
        None => number.to_string().into(),
    }
}

fn float_value(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

fn to_int(value: &Value) -> Result<i128, String> {
    match value {
        Value::Bool(value) => Ok(i128::from(*value)),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), ..) => Ok(value.into()),
            (_, Some(value), _) => Ok(value.into()),
            (.., Some(value)) if value.is_finite() => Ok(value.trunc() as i128),
            _ => Err("cannot convert float infinity to integer".into()),
        },
        Value::String(text) => {
            let parsed = text.trim().parse::<i128>();
            parsed.map_err(|_| format!("invalid literal for int() with base 10: {}", repr(value)))
        }
        other => Err(wrong_type("int", other)),
    }
}

fn to_float(value: &Value) -> Result<f64, String> {
    let number = match value {
        Value::Bool(value) => f64::from(u8::from(*value)),
        Value::Number(number) => number.as_f64().unwrap_or(f64::INFINITY),
        Value::String(text) => {
            text.trim().parse().map_err(|_| format!("could not convert string to float: {}", repr(value)))?
        }
        other => return Err(wrong_type("float", other)),
    };
    if number.is_finite() { Ok(number) } else { Err("expected a finite number".into()) }
}

fn wrong_type(wanted: &str, value: &Value) -> String {
    let found = match value {
        Value::Null => "NoneType",
        Value::Array(_) => "list",
        _ => "dict",
    };
    format!("{wanted}() argument must be a string or a real number, not '{found}'")
}

fn to_bool(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(value) => Ok(*value),
        Value::Number(number) if number.as_f64() == Some(0.0) => Ok(false),
        Value::Number(number) if number.as_f64() == Some(1.0) => Ok(true),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err("expected true or false".into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn constants_become_what_is_declared() {
        let int = Kind::Int { default: 1, min: -5, max: Some(u64::MAX), step: 1 };
        let float = Kind::Float { default: 1.0, min: 0.0, max: Some(30.0), step: 1.0 };
        let text = Kind::Text { default: "", multiline: false };
        for (kind, value, expected) in [
            (int, json!(2.9), json!(2)),
            (int, json!("3"), json!(3)),
            (int, json!(true), json!(1)),
            (int, json!(1.5e3), json!(1500)),
            (int, json!(u64::MAX), json!(u64::MAX)),
            (float, json!(6), json!(6.0)),
            (float, json!("16"), json!(16.0)),
            (text, json!(5), json!("5")),
            (text, json!(true), json!("True")),
            (Kind::Bool(false), json!("false"), json!(false)),
            (Kind::Bool(false), json!(1), json!(true)),
        ] {
            assert_eq!(coerce(&kind, &value, &[]), Ok(expected), "{value}");
        }
        for (kind, value) in [
            (int, json!("3.0")),
            (int, json!(null)),
            (float, json!("nan")),
            (float, json!("inf")),
            (float, json!({})),
            (text, json!(null)),
            (text, json!({})),
            (Kind::Bool(false), json!(null)),
            (Kind::Bool(false), json!("yes")),
            (Kind::Link("MODEL"), json!("xyz")),
        ] {
            assert!(matches!(coerce(&kind, &value, &[]), Err(Problem::Type(_))), "{value}");
        }
        assert!(matches!(coerce(&float, &json!(31), &[]), Err(Problem::TooBig { .. })));
        assert!(matches!(coerce(&int, &json!(1e300), &[]), Err(Problem::TooBig { .. })));
        assert!(matches!(coerce(&int, &json!(-6), &[]), Err(Problem::TooSmall { .. })));
        let choice = Kind::Choice { options: &["5"], default: "5" };
        assert_eq!(coerce(&choice, &json!(5), &["5".into()]), Err(Problem::NotListed));
    }
}
