//! The names of functions, by what they do with what they are given.

use super::language::Sink;
use super::language::Sink::{Callback, Code, Command, Load};

/// The functions of one language that run something.
pub(super) type Sinks = &'static [(Sink, &'static [&'static str])];

/// Whether a list has a name. Nearly none of a program's words is in any, and for nearly all of
/// them the length and the first letter say so.
pub(super) fn has(list: &[&str], name: &str) -> bool {
    let alike = |listed: &&&str| listed.len() == name.len() && listed.bytes().next() == name.bytes().next();
    list.iter().filter(alike).any(|listed| *listed == name)
}

/// The same for names that count in any case; those of the list are in lower case.
pub(super) fn has_in_any_case(list: &[&str], name: &str) -> bool {
    list.iter().any(|listed| listed.eq_ignore_ascii_case(name))
}

pub(super) const PHP: Sinks = &[
    (Code, &["eval", "assert", "create_function"]),
    (
        Command,
        &[
            "system",
            "exec",
            "shell_exec",
            "passthru",
            "popen",
            "proc_open",
            "pcntl_exec",
            "expect_popen",
        ],
    ),
    (
        Load,
        &[
            "include",
            "include_once",
            "require",
            "require_once",
            "dl",
            "unserialize",
        ],
    ),
    (
        Callback,
        &[
            "call_user_func",
            "call_user_func_array",
            "array_map",
            "array_walk",
            "array_filter",
            "usort",
            "uasort",
            "uksort",
            "array_reduce",
            "register_shutdown_function",
            "ob_start",
            "iterator_apply",
            "forward_static_call",
            "register_tick_function",
            "array_udiff",
            "array_diff_ukey",
        ],
    ),
];

pub(super) const PHP_MEMBERS: Sinks = &[
    (Command, &["system", "passthru", "shell_exec", "popen"]),
    (Callback, &["invoke", "invokeargs"]),
];

pub(super) const JSP: Sinks = &[
    (Code, &["eval", "getValue"]),
    (Command, &["exec", "ProcessBuilder", "command"]),
    (
        Load,
        &[
            "defineClass",
            "load",
            "loadLibrary",
            "URLClassLoader",
            "ClassLoader",
            "ObjectInputStream",
        ],
    ),
    (Callback, &["invoke", "invokeExact"]),
];

pub(super) const NET: Sinks = &[
    (
        Code,
        &["eval", "CompileAssemblyFromSource", "EvaluateAsync", "RunAsync"],
    ),
    (Command, &["Start", "ProcessStartInfo"]),
    (
        Load,
        &["Load", "LoadFile", "LoadFrom", "CreateInstance", "Deserialize"],
    ),
    (Callback, &["Invoke", "InvokeMember"]),
];

pub(super) const VISUAL: Sinks = &[
    (Code, &["eval", "execute", "executeglobal"]),
    (Command, &["shell"]),
];

pub(super) const VISUAL_MEMBERS: Sinks = &[(Command, &["exec", "run", "shellexecute"])];

pub(super) const PYTHON: Sinks = &[
    (Code, &["eval", "exec", "execfile", "compile"]),
    (
        Command,
        &[
            "system",
            "popen",
            "Popen",
            "check_output",
            "getoutput",
            "getstatusoutput",
            "create_subprocess_shell",
        ],
    ),
    (Load, &["__import__", "import_module"]),
];

pub(super) const PYTHON_MEMBERS: Sinks = &[
    (Code, &["runcode", "runsource", "push"]),
    (
        Command,
        &[
            "system",
            "popen",
            "Popen",
            "run",
            "call",
            "check_call",
            "check_output",
            "getoutput",
            "getstatusoutput",
            "spawn",
            "execv",
            "execvp",
            "execl",
            "execlp",
            "execve",
            "spawnl",
            "spawnv",
            "posix_spawn",
            "create_subprocess_shell",
            "create_subprocess_exec",
            "exec_command",
        ],
    ),
    (Load, &["loads", "import_module"]),
];

pub(super) const PERL: Sinks = &[
    (Code, &["eval"]),
    (Command, &["system", "exec", "open", "readpipe"]),
    (Load, &["require", "do"]),
];

const CHILD_PROCESS: &[&str] = &[
    "exec",
    "execSync",
    "spawn",
    "spawnSync",
    "execFile",
    "execFileSync",
    "fork",
];

pub(super) const NODE: Sinks = &[
    (Code, &["eval", "Function"]),
    (Command, CHILD_PROCESS),
    (Load, &["require"]),
];

pub(super) const NODE_MEMBERS: Sinks = &[
    (
        Code,
        &[
            "runInThisContext",
            "runInNewContext",
            "runInContext",
            "constructor",
            "_compile",
        ],
    ),
    (Command, CHILD_PROCESS),
];

/// Functions that give back another form of what they are given, so that it is hidden in
/// between.
pub(super) const DECODERS: &[&str] = &[
    "base64_decode",
    "gzinflate",
    "gzuncompress",
    "gzdecode",
    "str_rot13",
    "strrev",
    "hex2bin",
    "pack",
    "convert_uudecode",
    "openssl_decrypt",
    "rawurldecode",
    "urldecode",
    "b64decode",
    "decodestring",
    "decompress",
    "unhexlify",
    "fromhex",
    "decode_base64",
    "unpack",
    "atob",
    "decodeBase64",
    "decodeBuffer",
    "getDecoder",
    "FromBase64String",
    "doFinal",
    "unescape",
    "decodeURIComponent",
    "decrypt",
    "b85decode",
    "a85decode",
    "xor",
];

/// Functions that give back what they are given, or most of it.
pub(super) const PASSING: &[&str] = &[
    "array",
    "URL",
    "URLSearchParams",
    "trim",
    "rtrim",
    "ltrim",
    "stripslashes",
    "str_replace",
    "preg_replace",
    "substr",
    "implode",
    "join",
    "array_values",
    "array_shift",
    "array_pop",
    "reset",
    "current",
    "end",
    "next",
    "strval",
    "sprintf",
    "file_get_contents",
    "str",
    "String",
    "bytes",
    "unquote",
    "unquote_plus",
    "toString",
    "from",
    "Buffer",
    "replace",
    "split",
    "list",
    "getBytes",
    "valueOf",
    "readLine",
    "next",
    "nextLine",
    "Scanner",
    "BufferedReader",
    "InputStreamReader",
    "readAllBytes",
    "ReadToEnd",
    "StreamReader",
    "GetString",
    "GetBytes",
    "ToString",
    "Trim",
    "Split",
    "concat",
    "strip",
    "decode",
    "encode",
    "read",
    "get",
    "getvalue",
    "getfirst",
    "parse",
    "stringify",
    "shift",
    "chr",
    "ucfirst",
    "lc",
    "uc",
    "map",
    "slice",
    "substring",
    "text",
    "json",
    "asText",
    "fopen",
    "fread",
    "fgets",
    "stream_get_contents",
    "iconv",
    "mb_convert_encoding",
    "html_entity_decode",
    "array_map",
    "array_filter",
    "explode",
    "str_split",
    "param",
    "shlex",
    "Cstr",
    "CStr",
    "Server",
    "UrlDecode",
    "HtmlDecode",
    "getOrDefault",
    "orElse",
    "ofNullable",
];

/// Functions that say something about what they are given, or make it harmless.
pub(super) const CLEANING: &[&str] = &[
    "escapeshellarg",
    "escapeshellcmd",
    "intval",
    "floatval",
    "boolval",
    "isset",
    "empty",
    "count",
    "strlen",
    "sizeof",
    "in_array",
    "is_numeric",
    "is_array",
    "is_string",
    "array_key_exists",
    "md5",
    "sha1",
    "hash",
    "crc32",
    "htmlspecialchars",
    "htmlentities",
    "ctype_alnum",
    "preg_match",
    "strpos",
    "strcmp",
    "hash_equals",
    "defined",
    "function_exists",
    "is_callable",
    "file_exists",
    "is_file",
    "basename",
    "absint",
    "sanitize_key",
    "sanitize_text_field",
    "wp_verify_nonce",
    "number_format",
    "round",
    "date",
    "int",
    "float",
    "len",
    "bool",
    "isinstance",
    "quote",
    "parseInt",
    "parseFloat",
    "Number",
    "Boolean",
    "equals",
    "equalsIgnoreCase",
    "startsWith",
    "endsWith",
    "contains",
    "isEmpty",
    "length",
    "size",
    "indexOf",
    "includes",
    "test",
    "match",
    "hasOwnProperty",
    "has",
    "escapeHTML",
    "escape",
    "encodeURIComponent",
    "toInteger",
    "startswith",
    "endswith",
    "isdigit",
    "Length",
    "Equals",
    "StartsWith",
    "IsNullOrEmpty",
    "defined",
    "exists",
    "ref",
    "scalar",
    "is_valid",
    "validate",
    "parseLong",
    "parseBoolean",
    "getName",
    "unset",
    "typeof",
];
