//! Which expressions are decided by comparing texts, without an automaton.
//!
//! All of it is about whole texts: `\A` in front and `\z` at the end say nothing new.

use super::Dot;
use super::parser::{Look, Node};

/// Literal alternatives that are matched by comparison rather than by automaton.
const LITERALS_MAX: usize = 1024;
/// Bytes of all of them, so that a short expression cannot become a long list.
const LITERAL_BYTES_MAX: usize = 1 << 20;
/// Bytes of a beginning or an end that is looked at before the automaton; more help little.
const EDGE_BYTES_MAX: usize = 256;
/// Alternatives that are searched for inside a text; beyond, an automaton is faster.
const SEARCHED_MAX: usize = 16;

/// What a text must be to match as a whole.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// One of these; sorted, each once.
    Literals(Vec<String>),
    /// One of these in any case; all are ASCII. A text that is not needs the automaton, because
    /// two letters outside of ASCII are `k` and `s` in another case.
    AsciiFolded(Vec<String>),
    /// Literal parts with anything between them.
    Pieces(Pieces),
    /// Whatever the automaton says, and no text but with this beginning and this end.
    General {
        /// The beginning; may be empty.
        prefix: String,
        /// The end; may be empty.
        suffix: String,
    },
}

/// `first.*middle.+last`: parts with gaps between them.
#[derive(Clone, Debug, PartialEq)]
pub struct Pieces {
    /// What the text begins with: one of these.
    first: Vec<String>,
    /// Each gap has at least so many letters, and one of these texts behind it. The last text
    /// ends the whole.
    rest: Vec<(usize, Vec<String>)>,
}

impl Pieces {
    /// Whether a text consists of the parts.
    pub fn is_match(&self, text: &str) -> bool {
        // The part that ends first leaves the most to those behind it.
        let starts = self.first.iter().filter(|part| text.starts_with(part.as_str()));
        let Some(mut at) = starts.map(String::len).min() else { return false };
        let Some(((last_gap, last), middle)) = self.rest.split_last() else {
            return at == text.len();
        };
        for (gap, parts) in middle {
            let Some(from) = skip(text, at, *gap) else { return false };
            let ends = parts.iter().filter_map(|part| {
                let found = text[from..].find(part.as_str())?;
                Some(from + found + part.len())
            });
            let Some(end) = ends.min() else { return false };
            at = end;
        }
        let Some(from) = skip(text, at, *last_gap) else { return false };
        last.iter().any(|part| text[from..].ends_with(part.as_str()))
    }

    /// The text with which every match begins.
    pub fn prefix(&self) -> &str {
        common_prefix(&self.first)
    }
}

/// The place `count` letters further on.
fn skip(text: &str, at: usize, count: usize) -> Option<usize> {
    let rest = &text[at..];
    let mut places = rest.char_indices().map(|(place, _)| place).chain([rest.len()]);
    places.nth(count).map(|place| at + place)
}

fn common_prefix(texts: &[String]) -> &str {
    let Some((first, others)) = texts.split_first() else { return "" };
    let shared = |other: &String| {
        let pairs = first.char_indices().zip(other.chars());
        let equal = pairs.take_while(|((_, a), b)| a == b).last();
        equal.map_or(0, |((at, letter), _)| at + letter.len_utf8())
    };
    &first[..others.iter().map(shared).min().unwrap_or(first.len())]
}

fn common_suffix(texts: &[String]) -> String {
    let reversed: Vec<String> = texts.iter().map(|text| text.chars().rev().collect()).collect();
    common_prefix(&reversed).chars().rev().collect()
}

/// The shape of an expression.
pub(super) fn of(root: &Node) -> Shape {
    let mut items = Vec::new();
    flatten(root, &mut items);
    if let Some(Node::Look(Look::BeginText)) = items.first() {
        items.remove(0);
    }
    if let Some(Node::Look(Look::EndText)) = items.last() {
        items.pop();
    }
    if let Some(mut literals) = expand_all(&items, Case::Exact) {
        literals.sort();
        literals.dedup();
        return Shape::Literals(literals);
    }
    if let Some(literals) = expand_all(&items, Case::AnyAscii) {
        return Shape::AsciiFolded(literals);
    }
    if let Some(pieces) = pieces(&items) {
        return Shape::Pieces(pieces);
    }
    let prefix = common_prefix(&expand_some(items.iter().copied(), false)).to_owned();
    let suffix = common_suffix(&expand_some(items.iter().rev().copied(), true));
    Shape::General { prefix, suffix }
}

/// Whether the expression is one group around anything at all.
pub(super) fn is_whole_capture(root: &Node) -> bool {
    let node = match root {
        Node::Concat(nodes) => {
            let inner = nodes
                .iter()
                .filter(|node| !matches!(node, Node::Look(Look::BeginText | Look::EndText)));
            let inner: Vec<&Node> = inner.collect();
            match inner[..] {
                [node] => node,
                _ => return false,
            }
        }
        node => node,
    };
    matches!(node, Node::Capture(inner) if gap(inner) == Some(0))
}

/// The parts that follow each other, through parentheses.
fn flatten<'a>(node: &'a Node, out: &mut Vec<&'a Node>) {
    match node {
        Node::Concat(nodes) => nodes.iter().for_each(|node| flatten(node, out)),
        Node::Capture(node) => flatten(node, out),
        node => out.push(node),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Case {
    Exact,
    /// Every letter in any case, all of it ASCII.
    AnyAscii,
}

/// `.*` and `.+`, and how many letters they must have.
fn gap(node: &Node) -> Option<usize> {
    match node {
        Node::Repeat { node, min, max: None, .. } if **node == Node::Any(Dot::All) => {
            Some(*min as usize)
        }
        _ => None,
    }
}

/// All texts that the node matches, when they are few.
///
/// A list whose alternatives are one text each is no longer than the expression, and may be of any
/// length.
fn expand(node: &Node, case: Case) -> Option<Vec<String>> {
    let texts = match node {
        Node::Letter { letter, fold } => {
            let fits = match case {
                Case::Exact => !fold,
                Case::AnyAscii => letter.is_ascii() && (*fold || !letter.is_ascii_alphabetic()),
            };
            fits.then(|| vec![letter.to_string()])?
        }
        Node::Class(class) if case == Case::Exact => {
            class.letters()?.into_iter().map(String::from).collect()
        }
        Node::Capture(node) => expand(node, case)?,
        Node::Concat(nodes) => expand_all(&nodes.iter().collect::<Vec<_>>(), case)?,
        Node::Alternate(nodes) => {
            let (mut texts, mut plain) = (Vec::new(), case == Case::Exact);
            for node in nodes {
                let own = expand(node, case)?;
                plain &= own.len() == 1;
                texts.extend(own);
                if texts.len() > LITERALS_MAX && !plain {
                    return None;
                }
            }
            texts
        }
        Node::Repeat { node, min: 0, max: Some(1), .. } => {
            let mut texts = expand(node, case)?;
            texts.push(String::new());
            texts
        }
        Node::Any(_) | Node::Class(_) | Node::Look(_) | Node::Repeat { .. } => return None,
    };
    Some(texts)
}

fn expand_all(nodes: &[&Node], case: Case) -> Option<Vec<String>> {
    let mut texts = vec![String::new()];
    for node in nodes {
        texts = followed(texts, expand(node, case)?)?;
    }
    Some(texts)
}

/// Each text of the one with each of the other behind it. A letter behind a long text costs no
/// more than behind a short one.
fn followed(mut before: Vec<String>, after: Vec<String>) -> Option<Vec<String>> {
    match (&mut before[..], &after[..]) {
        ([only], _) if only.is_empty() => Some(after),
        ([only], [next]) => {
            only.push_str(next);
            Some(before)
        }
        _ => product(&before, &after),
    }
}

fn product(before: &[String], after: &[String]) -> Option<Vec<String>> {
    let bytes = |texts: &[String]| texts.iter().map(String::len).sum::<usize>();
    let count = before.len().checked_mul(after.len())?;
    let total = bytes(before) * after.len() + bytes(after) * before.len();
    if count > LITERALS_MAX || total > LITERAL_BYTES_MAX {
        return None;
    }
    let pairs = before.iter().flat_map(|a| after.iter().map(move |b| format!("{a}{b}")));
    Some(pairs.collect())
}

/// The texts that the first nodes match, as far as these can be listed. `backwards`: the nodes
/// come last first.
fn expand_some<'a>(nodes: impl Iterator<Item = &'a Node>, backwards: bool) -> Vec<String> {
    let mut texts = vec![String::new()];
    for node in nodes {
        if texts.iter().any(|text| EDGE_BYTES_MAX < text.len()) {
            break;
        }
        let Some(next) = expand(node, Case::Exact) else { break };
        let joined = if backwards { product(&next, &texts) } else { product(&texts, &next) };
        let Some(joined) = joined else { break };
        texts = joined;
    }
    texts
}

fn pieces(items: &[&Node]) -> Option<Pieces> {
    let mut parts: Vec<Vec<String>> = Vec::new();
    let mut gaps = Vec::new();
    let mut current = vec![String::new()];
    for item in items {
        if let Some(min) = gap(item) {
            parts.push(std::mem::replace(&mut current, vec![String::new()]));
            gaps.push(min);
        } else {
            current = followed(current, expand(item, Case::Exact)?)?;
            if current.len() > SEARCHED_MAX {
                return None;
            }
        }
    }
    parts.push(current);
    let mut parts = parts.into_iter();
    let first = parts.next()?;
    Some(Pieces { first, rest: gaps.into_iter().zip(parts).collect() })
}
