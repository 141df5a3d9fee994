//! The text of `--help`.
use super::table::Definition;
use super::{Flags, ignored, refused};
use std::fmt::Write as _;

impl Flags {
    /// The text of `--help`: the flags by group, then the ignored ones.
    pub fn help() -> String {
        let mut text = String::new();
        let mut group = "";
        for definition in Flags::default().definitions() {
            if definition.group != group {
                group = definition.group;
                let _ = writeln!(text, "\n{group}:");
            }
            let Definition { name, kind, value, help, .. } = definition;
            let value = match kind {
                // The help of such a flag contains its long default.
                "string" if value.is_empty() || value.len() > 20 => "...".to_owned(),
                _ => value,
            };
            text += &columns(&format!("--{name}={value}"), help);
        }
        let ignored = ignored::BOOLEANS.len() + ignored::VALUES.len();
        let _ = writeln!(text, "\nOf the command line itself:");
        text += &columns("--flagfile=...", "Read flags from this file, one a line.");
        text += &columns("--undefok=...", "Comma-separated names of flags that may be unknown.");
        text += &columns(
            "--help, --version, --build_info",
            "Print this, the version, or how the program was built.",
        );
        let _ = writeln!(
            text,
            "\nFlags are written --name=value, --name value, -name=value, and if they are true or false --name or \
             --noname.\n{ignored} more flags of RocksDB's db_bench are accepted; a warning says that they have no \
             effect here.\n{} more are accepted when they are off, and refused with the reason when they are not.",
            refused::ALL.len()
        );
        text
    }
}

/// A line of the help: the name on the left, then wrapped text.
pub fn columns(left: &str, help: &str) -> String {
    const LEFT: usize = 34;
    const RIGHT: usize = 84;
    let mut lines = vec![String::new()];
    for word in help.split(' ') {
        let line = lines.last_mut().expect("there is a first line");
        if line.len() + 1 + word.len() > RIGHT {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    let mut text = format!("  {left:<LEFT$}");
    if left.len() >= LEFT {
        let _ = write!(text, "\n  {:<LEFT$}", "");
    }
    for (number, line) in lines.iter().enumerate() {
        let indent = if number == 0 { 0 } else { LEFT + 2 };
        let _ = writeln!(text, "{:indent$}{line}", "");
    }
    text
}
