//! What NVIDIA's driver says of itself: whether there is a GPU to compute on, and why not. Its library is looked for when
//! somebody asks, so nothing here needs CUDA to be built or loaded.

use super::DeviceName;
use crate::error::{PrismError, Result};

/// The first driver that knows [`LEAST_CUDA`].
const LEAST_DRIVER: u32 = 580;
/// The kernels are compiled with this CUDA.
const LEAST_CUDA: (i32, i32) = (13, 0);
/// What that CUDA compiles for, at least.
const LEAST_CAPABILITY: (i32, i32) = (8, 0);
/// A line of it names the version of a driver that is loaded.
const VERSION_FILE: &str = "/proc/driver/nvidia/version";

/// A GPU that can be computed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// As the driver counts.
    pub ordinal: usize,
    /// As the driver names it.
    pub name: String,
    /// The version of the driver, where the system tells.
    pub driver: Option<String>,
}

/// What the driver's library answers.
#[derive(Debug, Clone, Default)]
struct Answers {
    /// The newest CUDA that it knows: major, minor.
    cuda: (i32, i32),
    /// What starting it returned; 0 is success.
    start: i32,
    /// Names and compute capabilities.
    gpus: Vec<(String, (i32, i32))>,
}

/// The GPU of this ordinal, or the first that will do.
///
/// # Errors
/// `DEVICE_UNAVAILABLE` with the reason.
pub fn gpu(ordinal: Option<usize>) -> Result<Gpu> {
    let version = std::fs::read_to_string(VERSION_FILE).ok().and_then(|text| version_in(&text));
    verdict(version, library::ask().as_ref(), ordinal).map_err(|reason| {
        let device = ordinal.map_or("cuda".into(), |ordinal| DeviceName::Cuda(ordinal).to_string());
        PrismError::DeviceUnavailable { device, reason }
    })
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  …`: the first word of digits and dots.
fn version_in(text: &str) -> Option<String> {
    let is_version = |word: &&str| word.contains('.') && word.chars().all(|c| c == '.' || c.is_ascii_digit());
    text.lines().next()?.split_whitespace().find(is_version).map(str::to_string)
}

/// The GPU, or why there is none.
fn verdict(
    version: Option<String>,
    answers: Option<&Answers>,
    ordinal: Option<usize>,
) -> std::result::Result<Gpu, String> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err(format!(
            "GPUs are used on x86-64 Linux only; this is {} {}",
            std::env::consts::ARCH,
            std::env::consts::OS
        ));
    }
    if let Some(version) = &version {
        let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
        if major < LEAST_DRIVER {
            return Err(format!("driver {version} is older than {LEAST_DRIVER}"));
        }
    }
    let Some(answers) = answers else {
        return Err(match version {
            None => format!("no NVIDIA driver ({} was not found)", library::NAME),
            Some(version) => format!("driver {version} is loaded, but its library {} was not found", library::NAME),
        });
    };
    if answers.cuda < LEAST_CUDA {
        let ((major, minor), (least, _)) = (answers.cuda, LEAST_CUDA);
        return Err(format!(
            "the driver knows CUDA {major}.{minor}; CUDA {least} needs driver {LEAST_DRIVER} or newer"
        ));
    }
    match answers.start {
        0 => {}
        NO_DEVICE => return Err("the NVIDIA driver finds no GPU".into()),
        code => return Err(format!("the NVIDIA driver does not start (CUDA error {code})")),
    }
    let count = answers.gpus.len();
    let too_old = |(name, (major, minor)): &(String, (i32, i32))| {
        let (least, least_minor) = LEAST_CAPABILITY;
        format!("{name} has compute capability {major}.{minor}; {least}.{least_minor} is the least")
    };
    let does = |(_, capability): &(String, (i32, i32))| *capability >= LEAST_CAPABILITY;
    let chosen = match ordinal {
        Some(ordinal) => (ordinal < count).then_some(ordinal),
        None => answers.gpus.iter().position(does).or((count > 0).then_some(0)),
    };
    let Some((ordinal, gpu)) = chosen.map(|ordinal| (ordinal, &answers.gpus[ordinal])) else {
        return Err(match count {
            0 => "the NVIDIA driver finds no GPU".into(),
            1 => "the only GPU is cuda:0".into(),
            _ => format!("the GPUs are cuda:0 to cuda:{}", count - 1),
        });
    };
    if does(gpu) { Ok(Gpu { ordinal, name: gpu.0.clone(), driver: version }) } else { Err(too_old(gpu)) }
}

/// What starting the driver returns where it finds no GPU.
const NO_DEVICE: i32 = 100;

#[cfg(target_os = "linux")]
mod library {
    use super::Answers;
    use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

    pub const NAME: &str = "libcuda.so.1";
    /// Numbers of `CUdevice_attribute`: compute capability, major and minor.
    const CAPABILITY: [c_int; 2] = [75, 76];

    /// Asks the library, if there is one. It stays loaded, for it may not be unloaded once it was started.
    pub fn ask() -> Option<Answers> {
        // SAFETY: a name that ends; the driver's library may be loaded at any time, from any thread
        let handle = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
        if handle.is_null() { None } else { answers(handle) }
    }

    /// `None` where a function is missing: then it is no driver.
    fn answers(handle: *mut c_void) -> Option<Answers> {
        let symbol = |name: &CStr| {
            // SAFETY: a handle that `dlopen` gave, and a name that ends
            let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
            if address.is_null() { None } else { Some(address) }
        };
        type Number = unsafe extern "C" fn(*mut c_int) -> c_int;
        type Start = unsafe extern "C" fn(c_uint) -> c_int;
        type Get = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
        type Name = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
        type Attribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
        // SAFETY: the types of these functions as cuda.h declares them, the same in every version
        let (cuda, start, count, get, name, attribute) = unsafe {
            (
                std::mem::transmute::<*mut c_void, Number>(symbol(c"cuDriverGetVersion")?),
                std::mem::transmute::<*mut c_void, Start>(symbol(c"cuInit")?),
                std::mem::transmute::<*mut c_void, Number>(symbol(c"cuDeviceGetCount")?),
                std::mem::transmute::<*mut c_void, Get>(symbol(c"cuDeviceGet")?),
                std::mem::transmute::<*mut c_void, Name>(symbol(c"cuDeviceGetName")?),
                std::mem::transmute::<*mut c_void, Attribute>(symbol(c"cuDeviceGetAttribute")?),
            )
        };
        let number = |f: &dyn Fn(*mut c_int) -> c_int| {
            let mut value = 0;
            (f(&mut value) == 0).then_some(value)
        };
        let known = number(&|place| {
            // SAFETY: a place for one number, which is not kept
            unsafe { cuda(place) }
        });
        let known = known.unwrap_or(0);
        let mut answers = Answers { cuda: (known / 1000, known % 1000 / 10), ..Answers::default() };
        // SAFETY: it takes no pointer
        answers.start = unsafe { start(0) };
        if answers.start != 0 {
            return Some(answers);
        }
        let gpus = number(&|place| {
            // SAFETY: a place for one number, which is not kept
            unsafe { count(place) }
        });
        for ordinal in 0..gpus.unwrap_or(0) {
            let device = number(&|place| {
                // SAFETY: a place for one number, which is not kept
                unsafe { get(place, ordinal) }
            });
            let Some(device) = device else {
                answers.gpus.push((format!("GPU {ordinal}"), (0, 0)));
                continue;
            };
            let mut text = [0u8; 256];
            // SAFETY: as many bytes as are said, which end in a zero that is not said, and are not kept
            let named = unsafe { name(text.as_mut_ptr().cast(), text.len() as c_int - 1, device) } == 0;
            let text = CStr::from_bytes_until_nul(&text).map(|text| text.to_string_lossy().into_owned());
            let text = if named { text.unwrap_or_default() } else { format!("GPU {ordinal}") };
            let value = |which| {
                let value = number(&|place| {
                    // SAFETY: a place for one number, which is not kept
                    unsafe { attribute(place, which, device) }
                });
                value.unwrap_or(0)
            };
            answers.gpus.push((text, (value(CAPABILITY[0]), value(CAPABILITY[1]))));
        }
        Some(answers)
    }
}

#[cfg(not(target_os = "linux"))]
mod library {
    pub const NAME: &str = "libcuda.so.1";

    pub fn ask() -> Option<super::Answers> {
        None
    }
}

#[cfg(test)]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_loaded_driver() {
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version: 12.2";
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder)";
        assert_eq!(version_in(closed).as_deref(), Some("550.54.15"));
        assert_eq!(version_in(open).as_deref(), Some("580.65.06"));
        assert_eq!(version_in("GCC version 12"), None);
        assert_eq!(version_in(""), None);
    }

    fn gpus(capabilities: &[(i32, i32)]) -> Answers {
        let gpus = capabilities.iter().enumerate().map(|(i, capability)| (format!("GPU {i}"), *capability)).collect();
        Answers { cuda: (13, 0), start: 0, gpus }
    }

    #[test]
    fn every_reason_says_what_is_wrong() {
        let reason = |version: Option<&str>, answers: Option<Answers>, ordinal| {
            verdict(version.map(str::to_string), answers.as_ref(), ordinal).unwrap_err()
        };
        let good = || gpus(&[(9, 0)]);
        assert_eq!(reason(None, None, None), "no NVIDIA driver (libcuda.so.1 was not found)");
        assert_eq!(
            reason(Some("580.65.06"), None, None),
            "driver 580.65.06 is loaded, but its library libcuda.so.1 was not found"
        );
        assert_eq!(reason(Some("550.54.15"), Some(good()), None), "driver 550.54.15 is older than 580");
        assert_eq!(reason(Some("550.54.15"), None, Some(0)), "driver 550.54.15 is older than 580");
        assert_eq!(
            reason(None, Some(Answers { cuda: (12, 4), ..good() }), None),
            "the driver knows CUDA 12.4; CUDA 13 needs driver 580 or newer"
        );
        for answers in [Answers { start: 100, ..good() }, gpus(&[])] {
            assert_eq!(reason(None, Some(answers), None), "the NVIDIA driver finds no GPU");
        }
        assert_eq!(
            reason(None, Some(Answers { start: 803, ..good() }), None),
            "the NVIDIA driver does not start (CUDA error 803)"
        );
        assert_eq!(reason(None, Some(good()), Some(1)), "the only GPU is cuda:0");
        assert_eq!(reason(None, Some(gpus(&[(9, 0), (9, 0)])), Some(2)), "the GPUs are cuda:0 to cuda:1");
        let old = "GPU 0 has compute capability 7.5; 8.0 is the least";
        assert_eq!(reason(None, Some(gpus(&[(7, 5), (8, 6)])), Some(0)), old);
        assert_eq!(reason(None, Some(gpus(&[(7, 5), (7, 0)])), None), old);
    }

    #[test]
    fn the_first_that_will_do_is_taken_or_the_one_that_is_named() {
        let found = |answers: Answers, ordinal| verdict(None, Some(&answers), ordinal).unwrap().ordinal;
        assert_eq!(found(gpus(&[(7, 5), (8, 0), (9, 0)]), None), 1);
        assert_eq!(found(gpus(&[(7, 5), (8, 0), (9, 0)]), Some(2)), 2);
        let gpu = verdict(Some("580.65.06".into()), Some(&gpus(&[(12, 0)])), None).unwrap();
        assert_eq!(gpu, Gpu { ordinal: 0, name: "GPU 0".into(), driver: Some("580.65.06".into()) });
    }
}
