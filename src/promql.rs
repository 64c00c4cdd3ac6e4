//! `PromQL`: parsing, checking and evaluating queries.

pub mod ast;
pub mod functions;
#[cfg(test)]
mod fuzz;
pub mod lexer;
pub mod parser;
pub mod print;
pub mod types;

pub mod engine;
pub mod eval;
