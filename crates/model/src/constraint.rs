//! Placement constraints: the grammar. What they match is in `swarm-core`.

use crate::Invalid;

/// A parsed constraint, `KEY == VALUE` or `KEY != VALUE` (swarm-behaviour §5.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// What is compared.
    pub key: ConstraintKey,
    /// How.
    pub operator: Operator,
    /// With what; compared without regard to case.
    pub value: String,
}

/// What a constraint looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConstraintKey {
    /// `node.id`
    NodeId,
    /// `node.hostname`
    Hostname,
    /// `node.ip`: an address, or a network in CIDR form
    Ip,
    /// `node.role`
    Role,
    /// `node.platform.os`
    Os,
    /// `node.platform.arch`
    Arch,
    /// `node.labels.KEY`
    NodeLabel(String),
    /// `engine.labels.KEY`
    EngineLabel(String),
    /// Anything else: matches no node.
    Unknown(String),
}

/// Comparison of a constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

impl Constraint {
    /// Reads one constraint.
    ///
    /// # Errors
    /// Without an operator, with a bad key, with an empty or bad value.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let (key, operator, value) = if let Some((key, value)) = text.split_once("==") {
            (key, Operator::Equal, value)
        } else if let Some((key, value)) = text.split_once("!=") {
            (key, Operator::NotEqual, value)
        } else {
            return Err(Invalid(format!("constraint expected one operator from ==, != (got '{text}')")));
        };
        let (key, value) = (key.trim(), value.trim());
        let mut chars = key.chars();
        let first_ok = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        if !first_ok || key.len() < 2 || !chars.all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            return Err(Invalid(format!("key '{key}' is invalid in constraint '{text}'")));
        }
        let value_ok =
            |c: char| c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || ":-_.*()?+[]\\^$|/".contains(c);
        if value.is_empty() || !value.chars().all(value_ok) {
            return Err(Invalid(format!("value '{value}' is invalid in constraint '{text}'")));
        }
        Ok(Self { key: ConstraintKey::parse(key), operator, value: value.to_owned() })
    }
}

impl ConstraintKey {
    fn parse(key: &str) -> Self {
        let label = |prefix: &str| {
            let head = key.get(..prefix.len())?;
            (head.eq_ignore_ascii_case(prefix) && key.len() > prefix.len()).then(|| key[prefix.len()..].to_owned())
        };
        if let Some(name) = label("node.labels.") {
            return Self::NodeLabel(name);
        }
        if let Some(name) = label("engine.labels.") {
            return Self::EngineLabel(name);
        }
        match key.to_ascii_lowercase().as_str() {
            "node.id" => Self::NodeId,
            "node.hostname" => Self::Hostname,
            "node.ip" => Self::Ip,
            "node.role" => Self::Role,
            "node.platform.os" => Self::Os,
            "node.platform.arch" => Self::Arch,
            _ => Self::Unknown(key.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_ignore_case_and_label_names_keep_it() {
        let c = Constraint::parse(" Node.Labels.Zone==East ").expect("valid");
        assert_eq!(c.key, ConstraintKey::NodeLabel("Zone".into()));
        assert_eq!((c.operator, c.value.as_str()), (Operator::Equal, "East"));
        assert_eq!(Constraint::parse("node.ID != x").expect("valid").key, ConstraintKey::NodeId);
        assert_eq!(
            Constraint::parse("node.lable.x==1").expect("valid").key,
            ConstraintKey::Unknown("node.lable.x".into())
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in
            [("node.role=manager", "==, !="), ("node.role==", "value ''"), ("==x", "key ''"), ("a b==x", "'a b'")]
        {
            let error = Constraint::parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,40}") {
            let _ = Constraint::parse(&text);
        }
    }
}
