//! Execs: additional processes in a running container.

use crate::documents;

documents! {
    /// Body of an exec create.
    pub struct ExecConfig {
        /// `user`, `uid`, `user:group`, …; the container's if empty.
        pub user: String,
        /// Whether it gets all capabilities.
        pub privileged: bool,
        /// Whether it gets a pseudo-terminal.
        pub tty: bool,
        /// Rows and columns of that terminal.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub console_size: Option<[u16; 2]>,
        /// Whether standard input is attached.
        pub attach_stdin: bool,
        /// Whether standard error is attached.
        pub attach_stderr: bool,
        /// Whether standard output is attached.
        pub attach_stdout: bool,
        /// Keys that detach.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub detach_keys: String,
        /// Environment as `NAME=value`, on top of the container's.
        pub env: Option<Vec<String>>,
        /// Working directory; the container's if empty.
        pub working_dir: String,
        /// Program and arguments.
        pub cmd: Option<Vec<String>>,
    }

    /// Answer to an exec create and to a commit.
    pub struct IdResponse {
        /// Id.
        pub id: String,
    }

    /// Body of an exec start.
    pub struct ExecStart {
        /// Whether nothing is attached.
        pub detach: bool,
        /// Whether a terminal is expected.
        pub tty: bool,
        /// Rows and columns of that terminal.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub console_size: Option<[u16; 2]>,
    }

    /// Everything about one exec.
    pub struct ExecInspect {
        /// Id.
        #[serde(rename = "ID")]
        pub id: String,
        /// Whether it runs.
        pub running: bool,
        /// Exit status, once it ended.
        pub exit_code: Option<i64>,
        /// What runs.
        pub process_config: ExecProcess,
        /// Whether standard input is attached.
        pub open_stdin: bool,
        /// Whether standard error is attached.
        pub open_stderr: bool,
        /// Whether standard output is attached.
        pub open_stdout: bool,
        /// Whether it may be removed.
        pub can_remove: bool,
        /// The container's id.
        #[serde(rename = "ContainerID")]
        pub container_id: String,
        /// Keys that detach.
        pub detach_keys: String,
        /// Process id on the host.
        pub pid: i64,
    }
}

/// What an exec runs; Docker spells these fields in lower case.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ExecProcess {
    /// Program.
    pub entrypoint: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Whether it has a pseudo-terminal.
    pub tty: bool,
    /// Whether it has all capabilities.
    pub privileged: bool,
    /// User, if one was given.
    pub user: String,
}
