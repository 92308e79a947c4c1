//! Figures: one number each, with what it was measured under.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Section;
use super::machine::Machine;

/// One figure.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Figure {
    /// What was measured, `benchmark.quantity`.
    pub name: String,
    /// The number.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// What it was measured under.
    #[serde(default)]
    pub params: BTreeMap<String, Value>,
    /// Half of the single operations took at most so long.
    #[serde(default)]
    pub p50_ms: Option<f64>,
    /// 99 of 100 did.
    #[serde(default)]
    pub p99_ms: Option<f64>,
    /// What the project wants to reach.
    #[serde(skip)]
    pub goal: Option<Goal>,
}

/// A goal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Goal {
    /// So much or more.
    AtLeast(f64),
    /// So much or less.
    AtMost(f64),
}

impl Figure {
    /// A figure without parameters.
    pub(super) fn new(name: &str, value: f64, unit: &str) -> Self {
        Self {
            name: name.to_owned(),
            value,
            unit: unit.to_owned(),
            params: BTreeMap::new(),
            p50_ms: None,
            p99_ms: None,
            goal: None,
        }
    }

    /// The same with one more parameter.
    #[must_use]
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.params.insert(name.to_owned(), value.into());
        self
    }

    /// The same with how long single operations took, in any order.
    #[must_use]
    pub(super) fn latencies(mut self, mut all_ms: Vec<f64>) -> Self {
        all_ms.sort_by(f64::total_cmp);
        (self.p50_ms, self.p99_ms) = (percentile(&all_ms, 50), percentile(&all_ms, 99));
        self
    }

    /// The same with a goal.
    #[must_use]
    pub(super) fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }

    fn cells(&self) -> [String; 6] {
        let params: Vec<String> = self
            .params
            .iter()
            .map(|(name, value)| match value {
                Value::String(text) => format!("{name} {text}"),
                value => format!("{name} {}", value.as_u64().map_or_else(|| value.to_string(), thousands)),
            })
            .collect();
        let time = |ms: Option<f64>| ms.map_or_else(String::new, number);
        let goal = match self.goal {
            None => String::new(),
            Some(Goal::AtLeast(least)) => {
                format!("≥ {}: {}", number(least), if self.value >= least { "met" } else { "missed" })
            }
            Some(Goal::AtMost(most)) => {
                format!("≤ {}: {}", number(most), if self.value <= most { "met" } else { "missed" })
            }
        };
        [
            self.name.clone(),
            params.join(", "),
            format!("{} {}", number(self.value), self.unit).trim_end().to_owned(),
            time(self.p50_ms),
            time(self.p99_ms),
            goal,
        ]
    }
}

/// The value that so many percent of the sorted ones do not exceed (nearest rank).
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied()
}

/// The middle one; of an even number the upper one.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Three digits that count, or all before the point.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => thousands(value.round() as u64),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

const HEAD: [&str; 6] = ["what", "with", "value", "p50 ms", "p99 ms", "goal"];

/// The figures as an aligned table of Markdown, which people read as well.
pub(super) fn table(figures: &[Figure]) -> Vec<String> {
    let rows: Vec<[String; 6]> =
        std::iter::once(HEAD.map(str::to_owned)).chain(figures.iter().map(Figure::cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            // Numbers stand below each other.
            if (2..5).contains(&column) { format!(" {cell:>width$} ") } else { format!(" {cell:<width$} ") }
        });
        format!("|{}|", cells.collect::<Vec<_>>().join("|"))
    };
    let rule = widths.iter().enumerate().map(|(column, width)| {
        let dashes = "-".repeat(width + 1);
        if (2..5).contains(&column) { format!("{dashes}:") } else { format!("-{dashes}") }
    });
    let rule = format!("|{}|", rule.collect::<Vec<_>>().join("|"));
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    lines.insert(1, rule);
    lines
}

/// All figures for programs. Percentiles are figures of their own.
pub(super) fn json(machine: &Machine, sections: &[Section]) -> Value {
    let mut results = Vec::new();
    for (section, figure) in sections.iter().flat_map(|section| section.figures.iter().map(move |f| (section, f))) {
        let mut add = |name: &str, value: f64, unit: &str| {
            let params: BTreeMap<&str, Value> = figure
                .params
                .iter()
                .map(|(name, value)| (name.as_str(), value.clone()))
                .chain([("idle_before", json!((section.idle * 100.0).round() / 100.0))])
                .collect();
            results.push(json!({ "name": name, "value": value, "unit": unit, "params": params }));
        };
        add(&figure.name, figure.value, &figure.unit);
        for (suffix, ms) in [("p50", figure.p50_ms), ("p99", figure.p99_ms)] {
            if let Some(ms) = ms {
                add(&format!("{}.{suffix}", figure.name), ms, "ms");
            }
        }
    }
    json!({ "machine": machine.json(), "results": results })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let texts = [1_234_567.8, 999.6, 12.34, 1.234, 0.0].map(number);
        assert_eq!(texts, ["1,234,568", "1000", "12.3", "1.23", "0.00"]);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99)), (Some(100.0), Some(198.0)));
        assert_eq!(percentile(&[7.0], 99), Some(7.0));
        assert_eq!(percentile(&[], 50), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn tables_are_aligned() {
        let fast = Figure::new("a.b", 1234.0, "1/s").with("clients", 16).goal(Goal::AtLeast(1000.0));
        let slow = Figure::new("long name", 2.0, "s").latencies(vec![1.0, 2.0, 3.0]);
        let lines = table(&[fast, slow]);
        assert_eq!(
            lines.join("\n"),
            "| what      | with       |     value | p50 ms | p99 ms | goal         |\n\
             |-----------|------------|----------:|-------:|-------:|--------------|\n\
             | a.b       | clients 16 | 1,234 1/s |        |        | ≥ 1,000: met |\n\
             | long name |            |    2.00 s |   2.00 |   3.00 |              |"
        );
    }

    #[test]
    fn json_has_percentiles_as_results() {
        let figure = Figure::new("a.b", 5.0, "1/s").with("clients", 1).latencies(vec![4.0]);
        let section = Section { name: super::super::Name::Writes, idle: 0.987, figures: vec![figure] };
        let json = json(&Machine::default(), &[section]);
        let names: Vec<&str> =
            json["results"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["a.b", "a.b.p50", "a.b.p99"]);
        assert_eq!(json["results"][1]["params"]["idle_before"], 0.99);
    }
}
