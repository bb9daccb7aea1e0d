//! Tests that docs/flasher.md names each option, variable and code.

use clap::CommandFactory;
use flashjob_flasher::arguments::Arguments;
use flashjob_flasher::outcome::Code;

#[test]
fn each_option_variable_and_code_is_documented() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/flasher.md");
    let text = std::fs::read_to_string(file).expect("the document");
    let mut command = Arguments::command();
    command.build();
    let ways = command.get_subcommands().filter(|way| way.get_name() != "help");
    for argument in ways.flat_map(clap::Command::get_arguments) {
        let long = argument.get_long().expect("a name");
        if long == "help" {
            continue;
        }
        assert!(text.contains(&format!("`--{long}`")), "--{long}");
        if let Some(variable) = argument.get_env() {
            let variable = format!("`{}`", variable.to_string_lossy());
            assert!(text.contains(&variable), "{variable}");
        }
        let name = format!("--{long}");
        let rows: Vec<&str> =
            text.lines().filter(|line| line.contains(&format!("`{name}`"))).collect();
        for default in argument.get_default_values() {
            let default = default.to_string_lossy();
            let has_it = rows.iter().any(|row| row.contains(default.as_ref()));
            assert!(has_it, "{name}: {default}: {rows:?}");
        }
    }
    for code in Code::ALL {
        let row = format!("| {code:?} | {} |", code as u8);
        assert!(text.contains(&row), "{row}");
    }
}
