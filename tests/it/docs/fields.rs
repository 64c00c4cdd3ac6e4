//! What the fields of the configuration mean. Their names come from the program.

/// One section of the file.
pub struct Section {
    pub title: &'static str,
    pub about: &'static str,
    /// A file with `HERE` where a field of the section may stand.
    pub probe: &'static str,
    /// Which fields of `http_config` it tells, where they stand among its own.
    pub http: Http,
    /// Name, default, meaning.
    pub fields: &'static [(&'static str, &'static str, &'static str)],
}

/// Which fields of `http_config` a section tells.
#[derive(Clone, Copy, PartialEq)]
pub enum Http {
    /// It has none, or they are its own.
    Own,
    /// They stand among its own, but are told elsewhere.
    Elsewhere,
    /// Nothing else.
    Only,
}

impl Section {
    /// Whether the field is told in another section.
    pub fn leaves_out(&self, name: &str) -> bool {
        let is_http = HTTP.iter().any(|(own, ..)| *own == name);
        match self.http {
            Http::Own => false,
            Http::Elsewhere => is_http,
            Http::Only => !is_http,
        }
    }
}

const fn section(
    title: &'static str,
    about: &'static str,
    probe: &'static str,
    fields: &'static [(&'static str, &'static str, &'static str)],
) -> Section {
    Section { title, about, probe, http: Http::Own, fields }
}

const HTTP: &[(&str, &str, &str)] = &[
    ("authorization", "", "An `Authorization` header; see below."),
    ("basic_auth", "", "Name and password; see below."),
    ("bearer_token", "", "A token, also as `authorization.credentials`."),
    ("bearer_token_file", "", "A file that holds it."),
    ("enable_http2", "true", "Speak HTTP/2 where the server does."),
    ("follow_redirects", "true", "Go where the server says."),
    ("http_headers", "", "More headers: each a name with `values`, `secrets` and `files`."),
    ("no_proxy", "", "Hosts and networks that are reached without the proxy, separated by commas."),
    ("oauth2", "", "A token from an OAuth 2.0 server; see below."),
    ("proxy_connect_header", "", "Headers for the proxy."),
    (
        "proxy_from_environment",
        "false",
        "Take the proxy from `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.",
    ),
    ("proxy_url", "", "The proxy."),
    ("tls_config", "", "TLS; see below."),
];

/// All sections, in the order of the page.
pub const SECTIONS: &[Section] = &[
    section(
        "Top level",
        "Every section may be left out.",
        "HERE",
        &[
            ("alerting", "", "External Alertmanagers."),
            ("global", "", "Defaults of all jobs and rules."),
            ("otlp", "", "How metrics of OpenTelemetry are named."),
            ("rule_files", "", "Paths or patterns (`*` in the last part) of rule files."),
            ("runtime", "", "Accepted without effect: there is no garbage collector."),
            ("scrape_config_files", "", "Paths or patterns of files with `scrape_configs`."),
            ("scrape_configs", "", "What to scrape."),
            ("storage", "", "How long and how late samples are kept."),
            ("tracing", "", "Accepted without effect."),
        ],
    ),
    section(
        "global",
        "Defaults; jobs and groups may say otherwise.",
        "global: {HERE}",
        &[
            (
                "always_scrape_classic_histograms",
                "false",
                "Keep classic buckets beside a native histogram.",
            ),
            ("body_size_limit", "0", "Bytes of an answer, uncompressed; 0: any number."),
            (
                "convert_classic_histograms_to_nhcb",
                "false",
                "Turn classic histograms into native ones with custom buckets.",
            ),
            (
                "evaluation_interval",
                "1m",
                "Between evaluations of a rule group, and the step of subqueries that name none.",
            ),
            (
                "external_labels",
                "",
                "Labels of this server, on what leaves it: alerts, federation, remote read.",
            ),
            ("extra_scrape_metrics", "false", "Write limits and timeouts of a scrape as series."),
            (
                "keep_dropped_targets",
                "0",
                "Dropped targets that the API shows for each job; 0: all.",
            ),
            ("label_limit", "0", "Labels of a series; 0: any number."),
            ("label_name_length_limit", "0", "Letters of a label's name; 0: any number."),
            ("label_value_length_limit", "0", "Letters of a label's value; 0: any number."),
            (
                "metric_name_escaping_scheme",
                "allow-utf-8",
                "Which names targets are asked for: `allow-utf-8`, `underscores`, `dots` or `values`.",
            ),
            ("metric_name_validation_scheme", "utf8", "Which names are valid: `utf8` or `legacy`."),
            ("query_log_file", "", "A file that every query is written to."),
            ("rule_query_offset", "0s", "How far in the past rules look."),
            ("sample_limit", "0", "Samples of a scrape; 0: any number."),
            ("scrape_failure_log_file", "", "A file that failed scrapes are written to."),
            ("scrape_interval", "1m", "Between scrapes."),
            (
                "scrape_native_histograms",
                "false",
                "Take native histograms where targets have them.",
            ),
            (
                "scrape_protocols",
                "OpenMetricsText1.0.0, OpenMetricsText0.0.1, PrometheusText1.0.0, PrometheusText0.0.4",
                "Formats to ask for, best first.",
            ),
            ("scrape_timeout", "10s", "Longest scrape; not longer than the interval."),
            ("target_limit", "0", "Targets of a job; 0: any number."),
        ],
    ),
    Section {
        title: "scrape_configs[]",
        about: "A job. The fields of `http_config` (below) stand among these.",
        probe: "scrape_configs: [{job_name: a, HERE}]",
        http: Http::Elsewhere,
        fields: &[
            ("always_scrape_classic_histograms", "global", "As in `global`."),
            ("body_size_limit", "global", "As in `global`."),
            ("convert_classic_histograms_to_nhcb", "global", "As in `global`."),
            ("enable_compression", "true", "Ask for compressed answers."),
            ("extra_scrape_metrics", "global", "As in `global`."),
            ("fallback_scrape_protocol", "", "Format of answers that do not say theirs."),
            ("file_sd_configs", "", "Targets from files; see below."),
            ("honor_labels", "false", "Labels of the samples win over those of the target."),
            (
                "honor_timestamps",
                "true",
                "Timestamps of the samples win over the time of the scrape.",
            ),
            ("job_name", "", "Name of the job, unique; the label `job`."),
            ("keep_dropped_targets", "global", "As in `global`."),
            ("label_limit", "global", "As in `global`."),
            ("label_name_length_limit", "global", "As in `global`."),
            ("label_value_length_limit", "global", "As in `global`."),
            ("metric_name_escaping_scheme", "global", "As in `global`."),
            ("metric_name_validation_scheme", "global", "As in `global`."),
            ("metric_relabel_configs", "", "Relabelling of samples."),
            ("metrics_path", "/metrics", "Path on the target."),
            (
                "native_histogram_bucket_limit",
                "0",
                "Buckets of a native histogram, beyond which it is made coarser; 0: any number.",
            ),
            (
                "native_histogram_min_bucket_factor",
                "0",
                "Growth from bucket to bucket, below which histograms are made coarser.",
            ),
            ("params", "", "Parameters of the request."),
            ("relabel_configs", "", "Relabelling of targets."),
            ("sample_limit", "global", "As in `global`."),
            ("scheme", "http", "`http` or `https`."),
            ("scrape_failure_log_file", "global", "As in `global`."),
            ("scrape_interval", "global", "As in `global`."),
            ("scrape_native_histograms", "global", "As in `global`."),
            ("scrape_protocols", "global", "As in `global`."),
            ("scrape_timeout", "global", "As in `global`."),
            ("static_configs", "", "Targets listed here; see below."),
            ("target_limit", "global", "As in `global`."),
            (
                "track_timestamps_staleness",
                "false",
                "End series with timestamps of their own when they vanish.",
            ),
        ],
    },
    section(
        "static_configs[]",
        "Targets that are always there.",
        "scrape_configs: [{job_name: a, static_configs: [{HERE}]}]",
        &[("labels", "", "Labels of all of them."), ("targets", "", "Addresses, `host:port`.")],
    ),
    section(
        "file_sd_configs[]",
        "Targets from files in YAML or JSON; changes are seen at once.",
        "scrape_configs: [{job_name: a, file_sd_configs: [{files: [a.yml], HERE}]}]",
        &[
            ("files", "", "Paths, `*` in the last part."),
            (
                "refresh_interval",
                "5m",
                "They are read again after this time even when no change was seen.",
            ),
        ],
    ),
    section(
        "relabel_configs[]",
        "Also in `metric_relabel_configs` and `alert_relabel_configs`. Expressions are RE2's, anchored on both sides.",
        "scrape_configs: [{job_name: a, relabel_configs: [{HERE}]}]",
        &[
            (
                "action",
                "replace",
                "`replace`, `keep`, `drop`, `keepequal`, `dropequal`, `hashmod`, `labelmap`, `labeldrop`, `labelkeep`, `lowercase` or `uppercase`.",
            ),
            ("modulus", "", "For `hashmod`."),
            ("regex", "(.*)", "What the joined values must match."),
            ("replacement", "$1", "What the target label becomes."),
            ("separator", ";", "Between the values."),
            ("source_labels", "", "Labels whose values are joined."),
            ("target_label", "", "The label that is set."),
        ],
    ),
    Section {
        title: "http_config",
        about: "How requests are made; in jobs and Alertmanagers these fields stand among their own.",
        probe: "scrape_configs: [{job_name: a, HERE}]",
        http: Http::Only,
        fields: HTTP,
    },
    section(
        "tls_config",
        "TLS of a client.",
        "scrape_configs: [{job_name: a, oauth2: {client_id: a, token_url: b, tls_config: {HERE}}}]",
        &[
            ("ca", "", "Certificates to trust, as text."),
            ("ca_file", "", "A file that holds them."),
            ("cert", "", "Our own certificate, as text."),
            ("cert_file", "", "A file that holds it."),
            ("insecure_skip_verify", "false", "Trust any certificate."),
            ("key", "", "The key of our certificate, as text."),
            ("key_file", "", "A file that holds it."),
            ("max_version", "", "`TLS12` or `TLS13`."),
            ("min_version", "TLS12", "`TLS12` or `TLS13`."),
            ("server_name", "", "The name that the certificate must have."),
        ],
    ),
    section(
        "basic_auth",
        "Name and password.",
        "scrape_configs: [{job_name: a, basic_auth: {HERE}}]",
        &[
            ("password", "", "The password."),
            ("password_file", "", "A file that holds it, read for each request."),
            ("username", "", "The name."),
            ("username_file", "", "A file that holds it."),
        ],
    ),
    section(
        "authorization",
        "An `Authorization` header.",
        "scrape_configs: [{job_name: a, authorization: {HERE}}]",
        &[
            ("credentials", "", "What stands behind the type."),
            ("credentials_file", "", "A file that holds it, read for each request."),
            ("type", "Bearer", "The type."),
        ],
    ),
    section(
        "oauth2",
        "A token by client credentials.",
        "scrape_configs: [{job_name: a, oauth2: {client_id: a, token_url: b, HERE}}]",
        &[
            ("client_id", "", "Who we are."),
            ("client_secret", "", "How we prove it."),
            ("client_secret_file", "", "A file that holds it."),
            ("endpoint_params", "", "More parameters of the request."),
            ("grant_type", "client_credentials", "Nothing else is known."),
            ("no_proxy", "", "As in `http_config`."),
            ("proxy_connect_header", "", "As in `http_config`."),
            ("proxy_from_environment", "false", "As in `http_config`."),
            ("proxy_url", "", "As in `http_config`."),
            ("scopes", "", "What the token is for."),
            ("tls_config", "", "As in `http_config`."),
            ("token_url", "", "Who gives the token."),
        ],
    ),
    section(
        "alerting",
        "Who is told of alerts, beside the built-in Alertmanager.",
        "alerting: {HERE}",
        &[
            ("alert_relabel_configs", "", "Relabelling of alerts."),
            ("alertmanagers", "", "External Alertmanagers."),
        ],
    ),
    Section {
        title: "alerting.alertmanagers[]",
        about: "The fields of `http_config` stand among these.",
        probe: "alerting: {alertmanagers: [{HERE}]}",
        http: Http::Elsewhere,
        fields: &[
            ("alert_relabel_configs", "", "Relabelling of the alerts that these get."),
            ("api_version", "v2", "Nothing else is known."),
            ("file_sd_configs", "", "As in jobs."),
            ("path_prefix", "", "Path before `/api/v2/alerts`."),
            ("relabel_configs", "", "Relabelling of the Alertmanagers."),
            ("scheme", "http", "`http` or `https`."),
            ("static_configs", "", "As in jobs."),
            ("timeout", "10s", "Longest wait for an answer."),
        ],
    },
    section(
        "storage",
        "The store.",
        "storage: {HERE}",
        &[
            ("exemplars", "", "See below."),
            ("limits", "", "See below; not in Prometheus."),
            ("retention", "", "See below; not in Prometheus."),
            ("tsdb", "", "See below."),
        ],
    ),
    section(
        "storage.tsdb",
        "Series and samples.",
        "storage: {tsdb: {HERE}}",
        &[
            ("chunk_encoding", "", "Accepted without effect."),
            (
                "out_of_order_time_window",
                "2h",
                "How far behind the newest sample others may come. Prometheus' default is zero.",
            ),
            ("retention", "", "See below."),
            ("stale_series_compaction_threshold", "", "Accepted without effect."),
        ],
    ),
    section(
        "storage.tsdb.retention",
        "How much is kept; wins over flags.",
        "storage: {tsdb: {retention: {HERE}}}",
        &[
            ("percentage", "", "Of the file system; counts instead of the size."),
            ("size", "", "Bytes of the data directory."),
            ("time", "15d", "Age of samples; no limit when only the size is given."),
        ],
    ),
    section(
        "storage.retention[]",
        "How long some series are kept, where that differs. An extension.",
        "storage: {retention: [{HERE}]}",
        &[
            ("match", "", "Selector of the series; the first entry that fits counts."),
            ("time", "", "Age of their samples; 0: they stay for ever."),
        ],
    ),
    section(
        "storage.limits",
        "How many active series there may be; 0: any number. Only new series are refused. An extension.",
        "storage: {limits: {HERE}}",
        &[
            ("active_series", "0", "In all."),
            ("active_series_per_job", "0", "Of one job."),
            ("jobs", "", "Of the jobs of these names, instead."),
        ],
    ),
    section(
        "otlp",
        "Metrics of OpenTelemetry (`--web.enable-otlp-receiver`).",
        "otlp: {HERE}",
        &[
            (
                "convert_histograms_to_nhcb",
                "false",
                "Histograms with listed bounds become native ones.",
            ),
            (
                "ignore_resource_attributes",
                "",
                "With `promote_all_resource_attributes`: all but these.",
            ),
            (
                "keep_identifying_resource_attributes",
                "false",
                "`target_info` also has the attributes that `job` and `instance` are made of.",
            ),
            (
                "label_name_preserve_multiple_underscores",
                "true",
                "Several underscores in a label's name stay several.",
            ),
            (
                "label_name_underscore_sanitization",
                "true",
                "A label's name that begins with one underscore gets `key` before it.",
            ),
            (
                "promote_all_resource_attributes",
                "false",
                "All attributes of the resource become labels.",
            ),
            ("promote_resource_attributes", "", "These attributes of the resource become labels."),
            (
                "promote_scope_metadata",
                "false",
                "Name, version and attributes of the library become labels.",
            ),
            (
                "translation_strategy",
                "UnderscoreEscapingWithSuffixes",
                "`UnderscoreEscapingWithSuffixes`, `UnderscoreEscapingWithoutSuffixes`, `NoUTF8EscapingWithSuffixes` or `NoTranslation`.",
            ),
        ],
    ),
    section(
        "Rule files: groups[]",
        "A file has a list `groups`. The rules of a group are evaluated in order.",
        "groups: [{name: a, HERE}]",
        &[
            ("interval", "global.evaluation_interval", "Between evaluations."),
            ("labels", "", "Labels of all results and alerts of the group."),
            ("limit", "0", "Series or alerts of one rule, beyond which it fails; 0: any number."),
            ("name", "", "Unique in the file."),
            ("query_offset", "global.rule_query_offset", "How far in the past the rules look."),
            ("rules", "", "The rules."),
        ],
    ),
    section(
        "Rule files: rules[]",
        "Either `record` or `alert`.",
        "groups: [{name: a, rules: [{HERE}]}]",
        &[
            ("alert", "", "Name of the alert."),
            ("annotations", "", "Texts of the alert, templates."),
            ("expr", "", "PromQL expression."),
            ("for", "0s", "How long it must hold before the alert fires."),
            (
                "keep_firing_for",
                "0s",
                "How long the alert goes on firing after it does not hold any more.",
            ),
            ("labels", "", "Labels of the result or the alert; those of an alert are templates."),
            ("record", "", "Name of the series that takes the result."),
        ],
    ),
];
