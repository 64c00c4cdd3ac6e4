//! `/features`: what this server can do, and what of it is switched on, under Prometheus' names.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;

use super::super::respond::{ApiResult, Success};
use super::super::{Options, Services};
use crate::promql::ast::{AggregateOp, BinaryOp};
use crate::promql::functions;
use crate::promql::parser::ParserOptions;
use crate::template::prometheus::own_function_names;

type Category = BTreeMap<&'static str, bool>;

pub(super) async fn features(State(services): State<Arc<Services>>) -> ApiResult {
    Ok(Success::of(&all(&services.options)))
}

fn all(options: &Options) -> BTreeMap<&'static str, Category> {
    let parser = &options.parser;
    BTreeMap::from([
        ("api", api(options)),
        (
            "otlp_receiver",
            Category::from([("delta_conversion", false), ("native_delta_ingestion", false)]),
        ),
        (
            "prometheus",
            Category::from([
                ("agent_mode", false),
                ("auto_reload_config", false),
                ("server_mode", true),
            ]),
        ),
        ("promql", promql(options)),
        (
            "promql_functions",
            functions::all()
                .iter()
                .map(|own| (own.name, !own.experimental || parser.experimental_functions))
                .collect(),
        ),
        ("promql_operators", operators(parser)),
        (
            "rules",
            Category::from([
                ("concurrent_rule_eval", false),
                ("keep_firing_for", true),
                ("query_offset", true),
            ]),
        ),
        (
            "scrape",
            Category::from([
                ("extra_scrape_metrics", true),
                ("start_timestamp_zero_ingestion", options.start_timestamps.begin_with_zero),
                ("type_and_unit_labels", options.type_and_unit_labels),
            ]),
        ),
        ("service_discovery_providers", on(&["file", "static"])),
        ("templating_functions", own_function_names().map(|name| (name, true)).collect()),
    ])
}

fn on(names: &[&'static str]) -> Category {
    names.iter().map(|name| (*name, true)).collect()
}

fn api(options: &Options) -> Category {
    let mut category = on(&[
        "exclude_alerts",
        "label_values_match",
        "query_stats",
        "query_warnings",
        "time_range_labels",
        "time_range_series",
    ]);
    category.extend([
        ("admin", options.enable_admin_api),
        ("lifecycle", options.enable_lifecycle),
        ("otlp_write_receiver", options.enable_otlp_receiver),
        ("remote_write_receiver", options.enable_remote_write_receiver),
        ("search", false),
    ]);
    category
}

fn promql(options: &Options) -> Category {
    let parser = &options.parser;
    let mut category = on(&[
        "at_modifier",
        "bool",
        "by",
        "group_left",
        "group_right",
        "ignoring",
        "negative_offset",
        "offset",
        "on",
        "per_query_lookback_delta",
        "subqueries",
        "without",
    ]);
    category.extend([
        ("anchored", parser.extended_range_selectors),
        ("smoothed", parser.extended_range_selectors),
        ("delayed_name_removal", options.delayed_name_removal),
        ("duration_expr", parser.duration_expressions),
        ("fill", parser.binop_fill_modifiers),
        ("fill_left", parser.binop_fill_modifiers),
        ("fill_right", parser.binop_fill_modifiers),
        ("per_step_stats", false),
        ("type_and_unit_labels", options.type_and_unit_labels),
    ]);
    category
}

fn operators(parser: &ParserOptions) -> Category {
    let mut category = on(&["=~", "!~", "@"]);
    category.extend(BinaryOp::ALL.iter().map(|op| (op.as_str(), true)));
    let is_on = |op: &AggregateOp| !op.is_experimental() || parser.experimental_functions;
    category.extend(AggregateOp::ALL.iter().map(|op| (op.as_str(), is_on(op))));
    category
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_switched_off_is_told() {
        let options = Options { enable_admin_api: true, ..Options::for_tests() };
        let features = all(&options);
        assert!(features["api"]["admin"]);
        assert!(!features["api"]["lifecycle"]);
        assert!(features["promql_functions"]["rate"]);
        assert_eq!(features["promql_operators"].len(), 3 + 18 + 14);
        assert!(features["promql_operators"]["topk"]);
        assert!(features["templating_functions"]["humanize1024"]);
        assert!(!features["templating_functions"].contains_key("printf"), "that is Go's");
        let experimental = ParserOptions { experimental_functions: false, ..options.parser };
        let features = all(&Options { parser: experimental, ..options });
        assert!(!features["promql_functions"]["mad_over_time"]);
        assert!(!features["promql_operators"]["limitk"]);
    }
}
