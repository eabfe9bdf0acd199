//! creel as an OCI runtime on the command line: `creel oci VERB`, with runc's verbs, flags, state documents and error
//! texts, so that callers written for runc work unchanged.
//!
//! Layer 2, synchronous, one thread (containers are cloned from this process). It knows the state directory, logs,
//! terminals and signals of a command; what a container is made of is `creel-runtime`'s and `creel-cgroup`'s.
//!
//! Begin reading at [`main`], then [`verbs`] (what can be said), `order` (what a new container is asked to be),
//! `create`, `store` (where it is remembered) and `record` (what follows from that).
//!
//! **What holds.** A container's record is on disk, with the place of its control group, before anything is made: a
//! killed `create` leaves nothing that `delete --force` does not find. A process is known by its id *and* its start
//! time, and signalled by pidfd. Whoever changes a container holds its lock. Everything below the root is reached from
//! the root's descriptor.

mod container;
mod create;
mod criu;
mod delete;
mod error;
mod events;
mod exec;
mod features;
pub mod flags;
mod foreground;
mod groups;
mod help;
mod id;
mod inherited;
mod list;
mod log;
mod mounts;
mod notify;
mod options;
mod order;
mod out;
mod procfs;
mod profiles;
mod record;
mod signals;
mod spec;
mod store;
mod update;
pub mod verbs;

use std::ffi::OsString;

pub use error::Error;
pub use help::SPEC_VERSION;

use error::Result;
use flags::Parsed;
use inherited::Inherited;
use log::{Format, Log};
use options::Options;
use verbs::{Name, Verb};

/// Runs the runtime with the arguments after its name; `program` is how it was called, for its help. Returns the exit
/// status.
pub fn main(program: &str, args: impl Iterator<Item = OsString>) -> i32 {
    let args: Vec<OsString> = args.collect();
    let refused = |text: String, help: String| {
        let _ = out::print(&help);
        Log::new(Format::Text, false).fail(&text);
        1
    };
    let global = match options::split(&args) {
        Ok(parsed) => parsed,
        Err(text) => return refused(text, format!("Incorrect Usage.\n\n{}", help::general(program))),
    };
    if global.help || global.on("version") || global.arguments.is_empty() {
        let text = if global.on("version") { help::version(program) } else { help::general(program) };
        return i32::from(out::print(&text).is_err());
    }
    let word = global.arguments[0].to_string_lossy().into_owned();
    let rest = &global.arguments[1..];
    let found = verbs::find(&word);
    let parsed = found.map(|verb| flags::parse(verb.flags, rest, verb.stop));
    if let (Some(verb), Some(Ok(parsed))) = (found, &parsed)
        && verb.joins()
        && !parsed.help
        && let Err(e) = creel_runtime::seal::put_out_of_reach()
    {
        let text =
            format!("cannot keep the program's file out of reach: {}", creel_runtime::error::plain(&e));
        Log::new(Format::Text, false).fail(&text);
        return 1;
    }
    // Before anything is opened here, so that nothing of ours is taken for the caller's.
    let inherited = match (found, &parsed) {
        (Some(verb), Some(Ok(parsed))) => {
            let listening = matches!(verb.name, Name::Create | Name::Run);
            Inherited::look(parsed.number("preserve-fds").unwrap_or(0), listening)
        }
        _ => Inherited::default(),
    };
    let options = match Options::read(program, &global) {
        Ok(options) => options,
        Err((log, error)) => {
            log.fail(&error.to_string());
            return error.code();
        }
    };
    if word == "help" || word == "h" {
        let text = rest.first().and_then(|word| verbs::find(&word.to_string_lossy()));
        let text = text.map_or_else(|| help::general(program), |verb| help::of(program, verb));
        return i32::from(out::print(&text).is_err());
    }
    let (Some(verb), Some(parsed)) = (found, parsed) else {
        let error = Error::NoVerb(word);
        options.log.fail(&error.to_string());
        return error.code();
    };
    let parsed = match parsed {
        Ok(parsed) if parsed.help => return i32::from(out::print(&help::of(program, verb)).is_err()),
        Ok(parsed) => parsed,
        Err(text) => {
            let _ = out::print(&format!("Incorrect Usage.\n\n{}", help::of(program, verb)));
            options.log.fail(&text);
            return 1;
        }
    };
    match run(&options, verb, &parsed, &inherited) {
        Ok(code) => code,
        Err(error) => {
            let text = error.to_string();
            if error.is_bare() {
                options.log.fail_bare(&text, &error.innermost().to_string());
            } else {
                options.log.fail(&text);
            }
            error.code()
        }
    }
}

/// Whether bytes that are read as a container's record mean the same when they are written and read again; also true
/// for bytes that are no record. For tests from outside, like the fuzzer's.
pub fn record_round_trips(bytes: &[u8]) -> bool {
    record::Record::parse(bytes)
        .map_or(true, |record| record::Record::parse(&record.to_json()).is_ok_and(|again| again == record))
}

/// Reads bytes as each of the small texts that the command line and the host's files hold: signals, sizes, durations,
/// ids, `/proc/PID/stat`, ps(1)'s table. True when what came of it is in its bounds. For tests from outside, like the
/// fuzzer's.
pub fn texts_hold(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let below = |id: &str| !id.contains('/') && !id.starts_with('.') && !id.is_empty();
    let _ = (signals::parse(first), events::duration(first), procfs::parse(bytes));
    let lines = rest.lines().count();
    update::parse_size(first).is_none_or(|size| size >= 0)
        && (id::check(first).is_err() || below(first))
        && list::select(&text, &[1, 2, 3]).map_or(true, |shown| shown.lines().count() <= lines + 1)
        && options::clean(first.as_ref())
            .components()
            .all(|part| !matches!(part, std::path::Component::ParentDir))
}

/// The arguments as text.
fn texts(parsed: &Parsed) -> Result<Vec<String>> {
    parsed
        .arguments
        .iter()
        .map(|arg| {
            arg.to_str()
                .map(str::to_owned)
                .ok_or_else(|| Error::Invalid(format!("argument {arg:?} is not UTF-8, which JSON requires")))
        })
        .collect()
}

fn check_count(program: &str, verb: &Verb, count: usize) -> Result<()> {
    let (least, most) = verb.count;
    let wrong = |how: String| {
        let _ = out::print(&format!("Incorrect Usage.\n\n{}", help::of(program, verb)));
        Err(Error::Usage(format!("{program}: {:?} requires {how} argument(s)", verb.word)))
    };
    if least == most && count != least {
        return wrong(format!("exactly {least}"));
    }
    if count < least {
        return wrong(format!("a minimum of {least}"));
    }
    if count > most {
        return wrong(format!("a maximum of {most}"));
    }
    Ok(())
}

fn run(o: &Options, verb: &Verb, parsed: &Parsed, inherited: &Inherited) -> Result<i32> {
    let args = texts(parsed)?;
    check_count(&o.program, verb, args.len())?;
    let id = args.first().map_or("", String::as_str);
    if least_one(verb) && id.is_empty() {
        return Err(Error::EmptyId);
    }
    let during = |what: &'static str| move |e: Error| e.during(format!("runc {what} failed"));
    let done = match verb.name {
        Name::Create => create::create(o, parsed, id, inherited).map_err(during("create")),
        Name::Run => return create::run(o, parsed, id, inherited).map_err(during("run")),
        Name::Exec => {
            return exec::exec(o, parsed, id, &args[1..], inherited)
                .map_err(|e| Error::WithCode { code: 255, inner: Box::new(e.during("exec failed")) });
        }
        Name::Start => container::start(o, id),
        Name::State => container::state(o, id),
        Name::Mounts => mounts::mounts(o, &args[0], &args[1], &args[2]),
        Name::Pause => container::pause(o, id),
        Name::Resume => container::resume(o, id),
        Name::Kill => signals::kill(o, id, args.get(1).map(String::as_str), parsed.on("all")),
        Name::Delete if parsed.on("regex") => delete::delete_matching(o, id, parsed.on("force")),
        Name::Delete => delete::delete(o, id, parsed.on("force")),
        Name::List => list::list(o, parsed),
        Name::Ps => list::ps(o, parsed, id, &args[1..]),
        Name::Spec => spec::spec(parsed),
        Name::Events => events::events(o, parsed, id),
        Name::Features => features::features(),
        Name::Update => update::update(o, parsed, id),
        Name::Checkpoint => criu::checkpoint(o, parsed, id),
        Name::Restore => return create::restore(o, parsed, id),
    };
    done.map(|()| 0)
}

fn least_one(verb: &Verb) -> bool {
    verb.count.0 > 0
}
