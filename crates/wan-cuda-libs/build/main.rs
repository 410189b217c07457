//! Makes a stand-in for every function of NVIDIA's libraries: it opens the library when it is first called. Linked
//! ahead of the libraries, the stand-ins leave nothing for the system's loader to look for when the program starts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// A library by the name it is linked with.
struct Library {
    name: &'static str,
    /// What it is called at run time.
    soname: String,
    functions: Vec<String>,
}

fn main() {
    println!("cargo:rerun-if-changed=build");
    println!("cargo:rerun-if-changed=src/lazy.c");
    for variable in ["CUDA_HOME", "CUDA_ROOT", "CUDA_PATH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let libraries = libraries(&toolkit());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let assembly = match env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
        Ok("x86_64") => assembly(&libraries, include_str!("x86_64.s"), X86_64),
        Ok("aarch64") => assembly(&libraries, include_str!("aarch64.s"), AARCH64),
        other => panic!("the CUDA engine is for x86_64 and aarch64, not for {other:?}"),
    };
    let (stand_ins, names) = (out.join("stand_ins.s"), out.join("sonames.h"));
    fs::write(&stand_ins, assembly).expect("OUT_DIR can be written");
    let list: String = libraries.iter().map(|l| format!("\"{}\", ", l.soname)).collect();
    fs::write(names, format!("{list}\n")).expect("OUT_DIR can be written");
    cc::Build::new()
        .warnings(true)
        .extra_warnings(true)
        .warnings_into_errors(true)
        .include(&out)
        .file("src/lazy.c")
        .file(stand_ins)
        // The libraries' callers come later on the linker's command line than this.
        .link_lib_modifier("+whole-archive")
        .compile("wan_cuda_lazy");
    println!("cargo:rustc-link-lib=dl");
}

/// The CUDA toolkit's folder.
fn toolkit() -> PathBuf {
    let homes = ["CUDA_HOME", "CUDA_ROOT", "CUDA_PATH"].iter().filter_map(env::var_os).map(PathBuf::from);
    homes.chain(["/usr/local/cuda".into()]).find(|home| home.join("include/cuda.h").is_file()).unwrap_or_else(
        || {
            panic!(
                "include/cuda.h not found in CUDA_HOME and /usr/local/cuda: install a CUDA toolkit (13.0 or later), \
                 or run `make cuda-toolkit` and build with `make build-cuda`"
            )
        },
    )
}

fn libraries(toolkit: &Path) -> Vec<Library> {
    let driver =
        Library { name: "cuda", soname: "libcuda.so.1".into(), functions: driver_functions(toolkit) };
    let others = ["cudart", "cublasLt", "cublas", "curand", "nvrtc"].map(|name| {
        let file = library_file(toolkit, name);
        let soname = file.file_name().expect("a file").to_string_lossy().into_owned();
        Library { name, soname, functions: exported_functions(&file) }
    });
    [driver].into_iter().chain(others).collect()
}

/// `lib<name>.so.<major>` of the toolkit.
fn library_file(toolkit: &Path, name: &str) -> PathBuf {
    let start = format!("lib{name}.so.");
    let folders = ["lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"];
    let is_it = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        file.strip_prefix(&start).is_some_and(|major| major.bytes().all(|b| b.is_ascii_digit()))
    };
    let files = folders.iter().filter_map(|f| fs::read_dir(toolkit.join(f)).ok()).flatten();
    files
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(is_it)
        .unwrap_or_else(|| panic!("{start}* not found in {}", toolkit.display()))
}

/// Functions that a shared library exports.
fn exported_functions(file: &Path) -> Vec<String> {
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(file).output();
    let output = output.unwrap_or_else(|e| panic!("nm: {e}: install binutils"));
    assert!(output.status.success(), "nm {}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // address, kind, name@@version
    let functions = text.lines().filter_map(|line| {
        let mut parts = line.split_whitespace().skip(1);
        (parts.next() == Some("T")).then(|| parts.next()?.split('@').next()).flatten()
    });
    sorted(functions.map(String::from))
}

/// Functions of the driver: its library comes with the driver, not with the toolkit, so its header is read. Macros
/// there rename some to their later versions.
fn driver_functions(toolkit: &Path) -> Vec<String> {
    let header = toolkit.join("include/cuda.h");
    let text = fs::read_to_string(&header).unwrap_or_else(|e| panic!("{}: {e}", header.display()));
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    // Types are CUxxx; of the lower-case names those that are no functions cost 40 bytes, which the linker drops.
    sorted(
        words
            .filter(|w| w.len() > 3 && w.starts_with("cu") && w.as_bytes()[2].is_ascii_uppercase())
            .map(String::from),
    )
}

fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    names
}

/// A stand-in on x86-64: its record in r11, which no argument uses, then on to where the record says.
const X86_64: &str = "    leaq .Lrecord_NAME(%rip), %r11\n    jmpq *(%r11)\n";
/// The same on aarch64 with x16 and x17.
const AARCH64: &str =
    "    adrp x16, .Lrecord_NAME\n    add x16, x16, :lo12:.Lrecord_NAME\n    ldr x17, [x16]\n    br x17\n";

/// The stand-ins, each with its record (see `src/lazy.c`) in sections of their own.
fn assembly(libraries: &[Library], resolve: &str, jump: &str) -> String {
    let mut text = String::from(resolve);
    for (index, library) in libraries.iter().enumerate() {
        text += &format!("# lib{}\n", library.name).replace('#', "//");
        for name in &library.functions {
            text += &format!(
                ".section .text.{name},\"ax\",%progbits\n.globl {name}\n.type {name}, %function\n{name}:\n{}\
                 .section .data.{name},\"aw\",%progbits\n.balign 8\n.Lrecord_{name}:\n    .quad wan_cuda_resolve\n    \
                 .quad .Lname_{name}\n    .quad {index}\n.section .rodata.{name},\"a\",%progbits\n.Lname_{name}:\n    \
                 .asciz \"{name}\"\n",
                jump.replace("NAME", name)
            );
        }
    }
    text + ".section .note.GNU-stack,\"\",%progbits\n"
}
