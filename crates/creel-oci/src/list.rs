//! `list` and `ps`.

use std::io::Read;
use std::process::Command;

use crate::container;
use crate::error::{Error, Result};
use crate::flags::Parsed;
use crate::options::Options;
use crate::out;
use crate::record::Shown;
use crate::store::Root;

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Table,
    Json,
}

fn format(parsed: &Parsed) -> Result<Format> {
    match parsed.text("format").as_deref() {
        None | Some("table") => Ok(Format::Table),
        Some("json") => Ok(Format::Json),
        Some(_) => Err(Error::Invalid("invalid format option".into())),
    }
}

/// `list`.
pub(crate) fn list(o: &Options, parsed: &Parsed) -> Result<()> {
    let root = match Root::open(&o.root)? {
        Some(root) => Some(root),
        // No containers have been made yet.
        None if !o.root_given => None,
        None => return Err(Error::on("open", &o.root, rustix::io::Errno::NOENT)),
    };
    let ids = root.as_ref().map(Root::ids).transpose()?.unwrap_or_default();
    if parsed.on("quiet") {
        return out::print(&ids.iter().map(|id| format!("{id}\n")).collect::<String>());
    }
    let format = format(parsed)?;
    let users = Users::read();
    let mut shown = Vec::new();
    for (root, id) in root.iter().flat_map(|root| ids.iter().map(move |id| (root, id))) {
        // One that cannot be read, or is just going, does not hide the others.
        match show(root, id, &users) {
            Ok(Some(one)) => shown.push(one),
            Ok(None) => {}
            Err(error) => o.log.warn(&format!("load container {id}: {error}")),
        }
    }
    match format {
        Format::Json => out::print(&format!("{}\n", serde_json::to_string(&shown).unwrap_or_default())),
        Format::Table => {
            let titles = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned).to_vec();
            let rows = shown
                .into_iter()
                .map(|c| vec![c.id, c.pid.to_string(), c.status.to_owned(), c.bundle, c.created, c.owner]);
            out::print(&out::table(&std::iter::once(titles).chain(rows).collect::<Vec<_>>()))
        }
    }
}

fn show(root: &Root, id: &str, users: &Users) -> Result<Option<Shown>> {
    let Some(entry) = root.entry(id)? else { return Ok(None) };
    let record = match entry.record() {
        Err(Error::NotExist) if !entry.is_linked() => return Ok(None),
        other => other?,
    };
    let status = record.status(&entry);
    Ok(Some(record.shown(status, users.name(entry.owner()))))
}

/// Names of users by id, from the host's passwd file.
struct Users(String);

impl Users {
    fn read() -> Users {
        let mut text = String::new();
        if let Ok(file) = std::fs::File::open("/etc/passwd") {
            let _ = file.take(4 << 20).read_to_string(&mut text);
        }
        Users(text)
    }

    fn name(&self, uid: u32) -> String {
        let wanted = uid.to_string();
        let entry = self.0.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1) == Some(wanted.as_str())).then(|| name.to_owned())
        });
        entry.unwrap_or_else(|| format!("#{uid}"))
    }
}

/// `ps ID [OPTIONS OF ps(1)]`.
pub(crate) fn ps(o: &Options, parsed: &Parsed, id: &str, args: &[String]) -> Result<()> {
    let loaded = container::load(o, id)?;
    let format = format(parsed)?;
    let pids = match loaded.record.group.open()? {
        Some(cgroup) => match cgroup.pids() {
            Ok(pids) => pids,
            Err(creel_cgroup::Error::NotFound { .. }) => Vec::new(),
            Err(e) => return Err(e.into()),
        },
        // Without a control group only process 1 is known.
        None if loaded.record.lives() => vec![loaded.record.pid],
        None => Vec::new(),
    };
    if format == Format::Json {
        return out::print(&format!("{}\n", serde_json::to_string(&pids).unwrap_or_default()));
    }
    let default = ["-ef".to_owned()];
    let args = if args.is_empty() { &default } else { args };
    let output = Command::new("ps").args(args).output().map_err(|e| Error::call("cannot run ps", e))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Invalid(format!("ps ended with {}: {}", output.status, said.trim_end())));
    }
    out::print(&select(&String::from_utf8_lossy(&output.stdout), &pids)?)
}

/// The lines of ps's table that belong to these processes, and its title.
pub(crate) fn select(table: &str, pids: &[i32]) -> Result<String> {
    let mut lines = table.lines();
    let title = lines.next().unwrap_or_default();
    let column = title
        .split_whitespace()
        .position(|name| name == "PID")
        .ok_or_else(|| Error::Invalid("couldn't find PID field in ps output".into()))?;
    let mut text = format!("{title}\n");
    for line in lines.filter(|line| !line.is_empty()) {
        let field = line.split_whitespace().nth(column).unwrap_or_default();
        let pid: i32 = field
            .parse()
            .map_err(|_| Error::Invalid(format!("unable to parse pid: {field:?} in ps output")))?;
        if pids.contains(&pid) {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_container() {
        let table = "UID   PID  PPID CMD\nroot    1     0 init 93\nroot   93     1 sleep 100\n\n";
        assert_eq!(select(table, &[93]).unwrap(), "UID   PID  PPID CMD\nroot   93     1 sleep 100\n");
        assert_eq!(select(table, &[]).unwrap(), "UID   PID  PPID CMD\n");
        assert!(select("COMMAND\nx\n", &[1]).is_err());
        assert!(select("PID\nx\n", &[1]).is_err());
    }

    #[test]
    fn owners() {
        let users = Users("root:x:0:0::/:\nadam:x:1000:7::/:\n".into());
        assert_eq!(
            (users.name(0), users.name(1000), users.name(7)),
            ("root".into(), "adam".into(), "#7".into())
        );
    }
}
