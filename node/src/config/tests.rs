use super::*;

fn cli(args: &[&str]) -> Cli {
    Cli::try_parse_from(std::iter::once(&"swarmd").chain(args)).unwrap()
}

fn load(args: &[&str], env: &[(&str, &str)], file: &str) -> Result<Config> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("swarmd.toml");
    fs::write(&path, file).unwrap();
    let mut args = args.to_vec();
    args.extend(["--config", path.to_str().unwrap()]);
    Config::load(cli(&args), |name| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
}

fn error(result: Result<Config>) -> String {
    format!("{:#}", result.unwrap_err())
}

#[test]
fn the_help_parses() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let env = [("SWARMD_HOSTNAME", "env"), ("SWARMD_SOCKET", "/env.sock")];
    let file = "hostname = 'file'\nsocket = '/file.sock'\nstate-dir = '/file'\n";
    let config = load(&["--hostname", "flag"], &env, file).unwrap();
    assert_eq!(config.hostname, "flag");
    assert_eq!(config.socket, Path::new("/env.sock"));
    assert_eq!(config.state_dir, Path::new("/file"));
    assert_eq!(config.engine, Engine::Docker("/var/run/docker.sock".into()));
    assert_eq!(config.listen_addr, LISTEN_ADDR_DEFAULT.parse().unwrap());
    assert_eq!(config.log_filter, "info,openraft=error");
}

#[test]
fn an_audit_log_is_named_like_any_other_setting() {
    let file = "audit-log = '/file.log'";
    assert_eq!(load(&[], &[], "").unwrap().audit_log, None);
    assert_eq!(load(&[], &[], file).unwrap().audit_log.as_deref(), Some(Path::new("/file.log")));
    let env = [("SWARMD_AUDIT_LOG", "/env.log")];
    assert_eq!(load(&[], &env, file).unwrap().audit_log.as_deref(), Some(Path::new("/env.log")));
    assert_eq!(load(&["--audit-log", ""], &env, file).unwrap().audit_log, None, "an empty name switches it off");
    let relative = load(&["--audit-log", "a.log"], &env, file).unwrap().audit_log.unwrap();
    assert_eq!(relative, std::env::current_dir().unwrap().join("a.log"));
}

#[test]
fn labels_of_all_sources_are_merged() {
    let env = [("SWARMD_LABEL", "a=env,b=env")];
    let config = load(&["--label", "a=flag", "--label", "x=1,2"], &env, "label = ['b=file', 'c=file']").unwrap();
    let expected = [("a", "flag"), ("b", "env"), ("c", "file"), ("x", "1,2")];
    assert_eq!(config.labels, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
}

#[test]
fn errors_name_the_value_and_where_it_comes_from() {
    let text = error(load(&["--engine", "tcp://x"], &[], ""));
    assert!(text.contains("\"tcp://x\" of --engine") && text.contains("simulated"), "{text}");
    let text = error(load(&[], &[("SWARMD_LISTEN_ADDR", "nowhere")], ""));
    assert!(text.contains("\"nowhere\" of SWARMD_LISTEN_ADDR"), "{text}");
    let text = error(load(&[], &[], "log-format = 'xml'"));
    assert!(text.contains("\"xml\" of log-format in") && text.contains("swarmd.toml"), "{text}");
    let text = error(load(&["--log-level", "a=b=c"], &[], ""));
    assert!(text.contains("--log-level"), "{text}");
    let text = error(load(&["--log-level", "verbose"], &[], ""));
    assert!(text.contains("verbose") && text.contains("debug"), "{text}");
    let text = error(load(&["--label", "=x"], &[], ""));
    assert!(text.contains("\"=x\""), "{text}");
}

#[test]
fn unknown_keys_in_the_file_are_refused() {
    let text = error(load(&[], &[], "hostnam = 'x'"));
    assert!(text.contains("hostnam") && text.contains("swarmd.toml"), "{text}");
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let text = error(Config::load(cli(&["--config", "/nonexistent.toml"]), |_| None));
    assert!(text.contains("/nonexistent.toml"), "{text}");
    let text = error(Config::load(cli(&[]), |n| (n == "SWARMD_CONFIG").then(|| "/none.toml".to_owned())));
    assert!(text.contains("/none.toml"), "{text}");
}
