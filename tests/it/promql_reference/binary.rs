//! Binary operators, moment by moment.

use std::collections::BTreeMap;

use narthex::model::histogram::ResetHint;
use narthex::model::labels::Labels;
use narthex::promql::ast::{Binary, BinaryOp, Cardinality, VectorMatching};

use super::{Fallible, Output, Value, Vector, is_metadata, unique};

/// Both sides are evaluated.
pub fn evaluate(binary: &Binary, lhs: Output, rhs: Output) -> Fallible<Output> {
    match (lhs, rhs) {
        (Output::Scalars(lhs), Output::Scalars(rhs)) => {
            let value = |(a, b): (f64, f64)| {
                let held = compare(binary.op, a, b).map(|held| f64::from(u8::from(held)));
                held.unwrap_or_else(|| arithmetic(binary.op, a, b))
            };
            Ok(Output::Scalars(lhs.into_iter().zip(rhs).map(value).collect()))
        }
        (Output::Vectors(vectors), Output::Scalars(scalars)) => {
            with_scalars(binary, vectors, &scalars, |vector, scalar| (vector, scalar))
        }
        (Output::Scalars(scalars), Output::Vectors(vectors)) => {
            with_scalars(binary, vectors, &scalars, |vector, scalar| (scalar, vector))
        }
        (Output::Vectors(lhs), Output::Vectors(rhs)) => {
            let matching = binary.matching.clone().unwrap_or_default();
            let both = lhs.into_iter().zip(rhs);
            let vectors = both.map(|(lhs, rhs)| match binary.op {
                BinaryOp::And => Ok(filter(&matching, lhs, &rhs, true)),
                BinaryOp::Unless => Ok(filter(&matching, lhs, &rhs, false)),
                BinaryOp::Or => {
                    let more = filter(&matching, rhs, &lhs, false);
                    Ok([lhs, more].concat())
                }
                _ => matched(binary, &matching, lhs, rhs),
            });
            unique(vectors.collect::<Result<_, String>>()?)
        }
    }
}

fn with_scalars<'v>(
    binary: &Binary,
    vectors: Vec<Vector>,
    scalars: &[f64],
    order: impl Fn(Value, Value) -> (Value, Value) + 'v,
) -> Fallible<Output> {
    let renames = !binary.op.is_comparison() && !is_trim(binary.op) || binary.return_bool;
    let vectors = vectors.into_iter().zip(scalars).map(|(vector, scalar)| {
        let element = |(labels, value): (Labels, Value)| {
            let (lhs, rhs) = order(value.clone(), Value::Float(*scalar));
            let result = combine(binary, &lhs, &rhs)?.filter_by(binary)?;
            let labels = labels.retain(|name| !renames || !is_metadata(name));
            let is_filter = binary.op.is_comparison() && !binary.return_bool;
            Some((labels, if is_filter { value } else { result }))
        };
        vector.into_iter().filter_map(element).collect()
    });
    unique(vectors.collect())
}

/// What an operator makes of two values that go together.
enum Outcome {
    Value(Value),
    /// The left value, if the comparison holds.
    Compared(Value, bool),
}

impl Outcome {
    fn filter_by(self, binary: &Binary) -> Option<Value> {
        match self {
            Self::Value(value) => Some(value),
            Self::Compared(_, held) if binary.return_bool => Some(f64::from(u8::from(held)).into()),
            Self::Compared(value, held) => held.then_some(value),
        }
    }
}

fn is_trim(op: BinaryOp) -> bool {
    matches!(op, BinaryOp::TrimLower | BinaryOp::TrimUpper)
}

fn compare(op: BinaryOp, a: f64, b: f64) -> Option<bool> {
    Some(match op {
        BinaryOp::Equal => a == b,
        BinaryOp::NotEqual => a != b,
        BinaryOp::Less => a < b,
        BinaryOp::LessEqual => a <= b,
        BinaryOp::Greater => a > b,
        BinaryOp::GreaterEqual => a >= b,
        _ => return None,
    })
}

fn arithmetic(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => a.powf(b),
        BinaryOp::Atan2 => a.atan2(b),
        other => panic!("not arithmetic: {other:?}"),
    }
}

fn combine(binary: &Binary, lhs: &Value, rhs: &Value) -> Option<Outcome> {
    use BinaryOp as Op;
    let value = match (binary.op, lhs, rhs) {
        (op, Value::Float(_), Value::Float(_)) if is_trim(op) => return None,
        (op, Value::Float(a), Value::Float(b)) => match compare(op, *a, *b) {
            Some(held) => return Some(Outcome::Compared(lhs.clone(), held)),
            None => arithmetic(op, *a, *b).into(),
        },
        (Op::Mul, Value::Histogram(one), Value::Float(by))
        | (Op::Mul, Value::Float(by), Value::Histogram(one)) => one.scaled(*by).into(),
        (Op::Div, Value::Histogram(one), Value::Float(by)) => one.divided(*by).into(),
        (Op::TrimUpper, Value::Histogram(one), Value::Float(at)) => one.trimmed_above(*at).into(),
        (Op::TrimLower, Value::Histogram(one), Value::Float(at)) => one.trimmed_below(*at).into(),
        (Op::Add, Value::Histogram(a), Value::Histogram(b)) => {
            let (sum, merged) = a.add(b).ok()?;
            (!merged.hints_collide).then_some(sum)?.into()
        }
        (Op::Sub, Value::Histogram(a), Value::Histogram(b)) => {
            let (mut difference, merged) = a.subtract(b).ok()?;
            difference.reset_hint = ResetHint::Gauge;
            (!merged.hints_collide).then_some(difference)?.into()
        }
        (Op::Equal | Op::NotEqual, Value::Histogram(a), Value::Histogram(b)) => {
            let held = a.has_same_values(b) == (binary.op == Op::Equal);
            return Some(Outcome::Compared(lhs.clone(), held));
        }
        _ => return None,
    };
    Some(Outcome::Value(value))
}

/// The labels by which a series is matched.
fn key(matching: &VectorMatching, labels: &Labels) -> Labels {
    let listed = |name: &str| matching.labels.iter().any(|own| own == name);
    labels
        .retain(|name| if matching.on { listed(name) } else { name != "__name__" && !listed(name) })
}

fn filter(matching: &VectorMatching, vector: Vector, by: &Vector, keep: bool) -> Vector {
    let keys: Vec<Labels> = by.iter().map(|(labels, _)| key(matching, labels)).collect();
    let is_met = |labels: &Labels| keys.contains(&key(matching, labels));
    vector.into_iter().filter(|(labels, _)| is_met(labels) == keep).collect()
}

fn matched(
    binary: &Binary,
    matching: &VectorMatching,
    lhs: Vector,
    rhs: Vector,
) -> Fallible<Vector> {
    let (fill_many, fill_one) = (matching.fill_left, matching.fill_right);
    let fills = fill_many.is_some() || fill_one.is_some();
    if lhs.is_empty() && rhs.is_empty() || (lhs.is_empty() || rhs.is_empty()) && !fills {
        return Ok(Vec::new());
    }
    let swapped = matching.card == Cardinality::OneToMany;
    let (many, one) = if swapped { (rhs, lhs) } else { (lhs, rhs) };
    let mut by_key: BTreeMap<Labels, (Labels, Value)> = BTreeMap::new();
    for (labels, value) in one {
        if by_key.insert(key(matching, &labels), (labels, value)).is_some() {
            return Err("found duplicate series for the match group".to_owned());
        }
    }
    let mut out = Vec::new();
    let mut results: Vec<(Labels, Labels)> = Vec::new();
    let fill = |key: &Labels, fill: f64| (key.clone(), Value::Float(fill));
    let mut pairs = Vec::new();
    for (labels, value) in many {
        let key = key(matching, &labels);
        let other = by_key.get(&key).cloned().or(fill_one.map(|value| fill(&key, value)));
        pairs.extend(other.map(|other| (key, (labels, value), other)));
    }
    let mut alone: Vec<_> = by_key.into_iter().collect();
    // Pairs first: what remains without one is known only when all of them are done.
    for at in 0.. {
        let pair = if at < pairs.len() {
            Some(pairs[at].clone())
        } else if let (Some(value), Some((key, other))) = (fill_many, alone.pop()) {
            let is_met = results.iter().any(|(own, _)| *own == key);
            if is_met {
                continue;
            }
            Some((key.clone(), fill(&key, value), other))
        } else {
            None
        };
        let Some((key, (labels, value), (other_labels, other))) = pair else { break };
        let (a, b) = if swapped { (&other, &value) } else { (&value, &other) };
        let Some(outcome) = combine(binary, a, b) else { continue };
        let result_labels = named(binary, matching, &labels, &other_labels);
        let one_to_one = matching.card == Cardinality::OneToOne;
        let again = |(own_key, own): &(Labels, Labels)| {
            *own_key == key && (one_to_one || *own == result_labels)
        };
        if results.iter().any(again) {
            return Err("multiple matches for labels".to_owned());
        }
        results.push((key, result_labels.clone()));
        out.extend(outcome.filter_by(binary).map(|value| (result_labels, value)));
    }
    Ok(out)
}

/// The labels of a result.
fn named(binary: &Binary, matching: &VectorMatching, many: &Labels, one: &Labels) -> Labels {
    let keeps_name = (binary.op.is_comparison() || is_trim(binary.op)) && !binary.return_bool;
    let listed = |name: &str| matching.labels.iter().any(|own| own == name);
    let one_to_one = matching.card == Cardinality::OneToOne;
    let kept = many.retain(|name| {
        (keeps_name || !is_metadata(name)) && (!one_to_one || listed(name) == matching.on)
    });
    let mut builder = kept.to_builder();
    for name in &matching.include {
        builder.set(name, one.get(name).unwrap_or(""));
    }
    builder.build()
}
