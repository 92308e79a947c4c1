use super::*;

#[test]
fn the_page_says_who_leads_and_what_is_wrong() {
    let manager = |id: &str, role: &str, lag: Option<u64>| ManagerView {
        id: id.to_owned(),
        hostname: format!("host-{id}"),
        addr: format!("10.0.0.{id}:2377"),
        role: role.to_owned(),
        reachability: "reachable".to_owned(),
        lag_entries: lag,
        ..ManagerView::default()
    };
    let view = ManagersView {
        term: 4,
        feature_level: 1,
        last_log_index: 90,
        applied_index: 89,
        managers: vec![manager("1", "leader", Some(0)), manager("2", "learner", None)],
        errors: vec!["it burns".to_owned()],
        warnings: vec!["it rains".to_owned()],
        ..ManagersView::default()
    };
    let rows = view.managers.iter().map(manager_row).collect();
    let table = render(&COLUMNS, rows, None, false).unwrap();
    let text = page(&view, "not probed", &table);
    assert!(text.starts_with("Leader:    host-1 (10.0.0.1:2377)\nTerm:      4\nFeatures:  level 1\n"), "{text}");
    assert!(
        text.contains("entry 90, applied up to 89") && text.contains("none yet\nData port: not probed\n"),
        "{text}"
    );
    assert!(
        text.contains("Learner   Reachable      -         -         -")
            && text.ends_with("\n\nError: it burns\nWarning: it rains\n"),
        "{text}"
    );
    assert!(!is_well(&view), "there is an error");
    let view = ManagersView { errors: Vec::new(), ..view };
    assert!(is_well(&view));
    let mut differs = view.clone();
    differs.managers[1].problem = "has stopped".to_owned();
    assert!(!is_well(&differs), "what watches the swarm is told");
    assert!(!is_well(&ManagersView { managers: Vec::new(), ..view }));
}

#[test]
fn a_node_that_another_does_not_reach_is_an_error_that_names_the_port() {
    let reach: ReachView = serde_json::from_value(serde_json::json!({
        "Pairs": 6, "Probed": 4,
        "Unreached": [{"From": "a", "To": "b", "Addr": "10.0.0.2:7947", "Reason": "no answer in time"}],
        "Silent": [{"Node": "c", "Reason": "its session ended"}],
    }))
    .unwrap();
    let mut view = ManagersView::default();
    let line = data_ports(Ok(reach), &mut view);
    assert_eq!(line, "3 of 6 pairs of nodes reach each other, 4 were probed");
    let error = &view.errors[0];
    assert!(error.starts_with("a does not reach the data port of b at 10.0.0.2:7947: no answer in time"), "{error}");
    assert!(error.contains("7947/tcp") && error.contains("docs/operations.md"), "{error}");
    assert_eq!(view.warnings, ["node c did not probe data ports: its session ended"]);
    let reach = ReachView { reason: "no service publishes a port".into(), ..ReachView::default() };
    assert_eq!(data_ports(Ok(reach), &mut view), "not probed: no service publishes a port");
}
