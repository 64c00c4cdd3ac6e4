//! The routing tree: which receivers get an alert, and how it is grouped on the way.

use std::collections::BTreeSet;

use crate::alerting::matchers;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;

/// Which labels make two alerts members of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupBy {
    /// All labels: every alert is its own group (`group_by: ['...']`).
    All,
    /// These labels; none: one group.
    Labels(BTreeSet<String>),
}

impl GroupBy {
    /// The part of the labels that names the group.
    pub fn project(&self, labels: &Labels) -> Labels {
        match self {
            Self::All => labels.clone(),
            Self::Labels(names) => labels.retain(|name| names.contains(name)),
        }
    }
}

/// One node of the tree, inheritance already applied.
#[derive(Clone, Debug)]
pub struct RouteOptions {
    /// Name of the receiver.
    pub receiver: String,
    /// Conditions an alert must fulfil; none at the root.
    pub matchers: Vec<Matcher>,
    /// Whether later siblings are tried after this one matched.
    pub continues: bool,
    /// Grouping.
    pub group_by: GroupBy,
    /// Time between the first alert of a group and its first notification.
    pub group_wait_ms: i64,
    /// Time between two looks at a group; above zero.
    pub group_interval_ms: i64,
    /// Time after which an unchanged notification is repeated; above zero.
    pub repeat_interval_ms: i64,
    /// Named intervals in which nothing is sent.
    pub mute_time_intervals: Vec<String>,
    /// Named intervals outside of which nothing is sent; none: always active.
    pub active_time_intervals: Vec<String>,
    /// Extra values for templates (`.RouteLabels`), parents' included.
    pub labels: Labels,
    /// Children in the order they are tried.
    pub routes: Vec<RouteOptions>,
}

/// A node in the flattened tree.
#[derive(Debug)]
pub struct Route {
    /// Key of the path from the root, as it appears in group keys.
    pub key: String,
    /// Settings; `routes` is empty here.
    pub options: RouteOptions,
    children: Vec<usize>,
}

/// The tree, flattened depth first; index 0 is the root.
#[derive(Debug)]
pub struct RouteTree {
    routes: Vec<Route>,
}

impl RouteTree {
    /// Flattens the options. Their depth is bounded by the configuration loader.
    pub fn new(root: RouteOptions) -> Self {
        let mut tree = Self { routes: Vec::new() };
        tree.add(root, None);
        tree
    }

    fn add(&mut self, mut options: RouteOptions, parent: Option<&str>) -> usize {
        matchers::sort(&mut options.matchers);
        let own = matchers::print_list(&options.matchers);
        let key = parent.map_or_else(|| own.clone(), |parent| format!("{parent}/{own}"));
        let children = std::mem::take(&mut options.routes);
        let index = self.routes.len();
        self.routes.push(Route { key: key.clone(), options, children: Vec::new() });
        let indices = children.into_iter().map(|child| self.add(child, Some(&key))).collect();
        self.routes[index].children = indices;
        index
    }

    /// All nodes, root first.
    pub fn all(&self) -> &[Route] {
        &self.routes
    }

    /// A node by its index; panics when there is none.
    pub fn get(&self, index: usize) -> &Route {
        &self.routes[index]
    }

    /// Indices of the routes that take an alert with these labels: never none.
    pub fn matching(&self, labels: &Labels) -> Vec<usize> {
        let mut found = Vec::new();
        self.search(0, labels, &mut found);
        found
    }

    fn search(&self, index: usize, labels: &Labels, found: &mut Vec<usize>) -> bool {
        let route = &self.routes[index];
        if !matchers::all_match(&route.options.matchers, labels) {
            return false;
        }
        let before = found.len();
        for &child in &route.children {
            let matched = self.search(child, labels, found);
            if matched && !self.routes[child].options.continues {
                break;
            }
        }
        if found.len() == before {
            found.push(index);
        }
        true
    }
}

/// The key of a group: the route's key and the group's labels.
pub fn group_key(route_key: &str, group_labels: &Labels) -> String {
    format!("{route_key}:{}", matchers::print_labels(group_labels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerting::matchers::parse_list;

    fn node(
        receiver: &str,
        matchers: &str,
        continues: bool,
        routes: Vec<RouteOptions>,
    ) -> RouteOptions {
        RouteOptions {
            receiver: receiver.to_owned(),
            matchers: parse_list(matchers).unwrap(),
            continues,
            group_by: GroupBy::Labels(BTreeSet::from(["alertname".to_owned()])),
            group_wait_ms: 0,
            group_interval_ms: 1,
            repeat_interval_ms: 1,
            mute_time_intervals: Vec::new(),
            active_time_intervals: Vec::new(),
            labels: Labels::empty(),
            routes,
        }
    }

    fn tree() -> RouteTree {
        RouteTree::new(node(
            "root",
            "",
            false,
            vec![
                node(
                    "pager",
                    r#"severity="critical""#,
                    false,
                    vec![node("db", r#"{team=~"db|sql",service="a"}"#, false, vec![])],
                ),
                node("log", r#"severity=~"warning|info""#, true, vec![]),
                node("chat", r#"severity="warning""#, false, vec![]),
                node("never", r#"severity="warning""#, false, vec![]),
            ],
        ))
    }

    #[test]
    fn alerts_take_the_deepest_matching_routes() {
        let tree = tree();
        for (labels, receivers) in [
            (vec![("severity", "critical")], vec!["pager"]),
            (vec![("severity", "critical"), ("team", "db"), ("service", "a")], vec!["db"]),
            (vec![("severity", "warning")], vec!["log", "chat"]),
            (vec![("severity", "info")], vec!["log"]),
            (vec![("team", "db")], vec!["root"]),
        ] {
            let found = tree.matching(&Labels::from_pairs(labels.clone()));
            let found: Vec<_> =
                found.iter().map(|index| tree.get(*index).options.receiver.as_str()).collect();
            assert_eq!(found, receivers, "{labels:?}");
        }
    }

    #[test]
    fn keys_are_alertmanagers() {
        let tree = tree();
        let keys: Vec<_> = tree.all().iter().map(|route| route.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "{}",
                r#"{}/{severity="critical"}"#,
                r#"{}/{severity="critical"}/{service="a",team=~"db|sql"}"#,
                r#"{}/{severity=~"warning|info"}"#,
                r#"{}/{severity="warning"}"#,
                r#"{}/{severity="warning"}"#,
            ]
        );
        let labels = Labels::from_pairs([("alertname", "Up\"x"), ("b", "y"), ("job", "z")]);
        let by = GroupBy::Labels(["alertname", "b", "gone"].map(str::to_owned).into());
        assert_eq!(
            group_key(tree.get(1).key.as_str(), &by.project(&labels)),
            r#"{}/{severity="critical"}:{alertname="Up\"x", b="y"}"#
        );
        assert_eq!(group_key("{}", &Labels::empty()), "{}:{}");
    }
}
