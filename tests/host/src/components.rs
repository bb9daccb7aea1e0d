//! Malicious components: valid ones with one change, and ones that no compiler would produce.

use anyhow::{Context, bail};
use wasm_encoder::{
    BlockType, CodeSection, Component, ComponentImportSection, ComponentTypeRef,
    ComponentTypeSection, Encode, Function, FunctionSection, InstanceSection, InstanceType,
    Instruction, MemorySection, MemoryType, Module, ModuleSection, RawSection, RefType,
    TableSection, TableType, TypeSection, ValType,
};
use wasmparser::{Parser, Payload};

const TYPES: u8 = 1;
const FUNCTIONS: u8 = 3;
const TABLES: u8 = 4;
const START: u8 = 8;
const CODE: u8 = 10;
const MODULE: u8 = 1;

/// Writes `mode` over the placeholder in `breaks-limits` that selects the behaviour of `describe`.
///
/// # Errors
/// The component has no such placeholder.
pub fn describing(component: &[u8], mode: &str) -> anyhow::Result<Vec<u8>> {
    let (place, mut changed) = (b"describe:nothing", component.to_vec());
    let at = changed
        .windows(place.len())
        .position(|window| window == place)
        .context("the component has no place for it")?;
    changed[at + 9..at + 16].copy_from_slice(format!("{mode:<7}").as_bytes());
    Ok(changed)
}

/// Behaviour of a component in its start function, before the first call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtStart {
    /// It never ends.
    Loop,
    /// It calls itself without end.
    Recursion,
    /// It requests all the memory that it can address.
    Memory,
    /// It requests a table of a hundred million elements.
    Table,
    /// It traps.
    Trap,
}

/// Returns the component with a start function in its largest module.
///
/// # Errors
/// The bytes are not a component, or not one that a compiler produced.
pub fn starting(component: &[u8], how: AtStart) -> anyhow::Result<Vec<u8>> {
    let modules: Vec<_> = Parser::new(0)
        .parse_all(component)
        .filter_map(|payload| match payload {
            Ok(Payload::ModuleSection { unchecked_range, .. }) => Some(unchecked_range),
            _ => None,
        })
        .collect();
    let largest =
        modules.iter().max_by_key(|range| range.end - range.start).context("it has no module")?;
    let (begin, end) = (usize::try_from(largest.start)?, usize::try_from(largest.end)?);
    let module = with_start(&component[begin..end], how)?;
    // The section's header: its id, and its length, whose encoded size is found by trying.
    let head = (2..=6).find(|length| {
        component[begin - length] == MODULE && encoded(end - begin).len() == length - 1
    });
    let head = head.context("the module is not where it should be")?;
    let mut changed = component[..begin - head + 1].to_vec();
    changed.extend(encoded(module.len()));
    changed.extend(module);
    changed.extend(&component[end..]);
    Ok(changed)
}

fn encoded(number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    number.encode(&mut bytes);
    bytes
}

fn with_start(module: &[u8], how: AtStart) -> anyhow::Result<Vec<u8>> {
    let (mut imported, mut types, mut functions, mut table, mut started) = (0, 0, 0, false, false);
    let mut changed = Module::new();
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload?;
        match &payload {
            Payload::TypeSection(section) => types = section.count(),
            Payload::ImportSection(section) => {
                let all = section.clone().into_imports().collect::<Result<Vec<_>, _>>()?;
                imported = all
                    .iter()
                    .filter(|import| matches!(import.ty, wasmparser::TypeRef::Func(_)))
                    .count();
            }
            Payload::FunctionSection(section) => functions = section.count(),
            Payload::TableSection(_) => table = true,
            Payload::StartSection { .. } => bail!("it has a start function already"),
            _ => {}
        }
        let Some((id, range)) = payload.as_section() else { continue };
        let data = &module[usize::try_from(range.start)?..usize::try_from(range.end)?];
        let start_index = u32::try_from(imported)? + functions;
        let more = match id {
            // A function type without parameters and results.
            TYPES => Some(vec![0x60, 0, 0]),
            FUNCTIONS => Some(encoded(usize::try_from(types)?)),
            CODE => Some(start_function(how, start_index)),
            _ => None,
        };
        // The start section comes before the sections of elements, data count, and code.
        if !started && [9, 10, 12].contains(&id) {
            changed
                .section(&RawSection { id: START, data: &encoded(usize::try_from(start_index)?) });
            started = true;
        }
        match more {
            Some(more) => changed.section(&RawSection { id, data: &appended(data, &more)? }),
            None => changed.section(&RawSection { id, data }),
        };
    }
    if how == AtStart::Table && !table {
        bail!("it has no table, section {TABLES}");
    }
    Ok(changed.finish())
}

/// Returns a vector section with one more item.
fn appended(section: &[u8], more: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut reader = wasmparser::BinaryReader::new(section, 0);
    let count = reader.read_var_u32()?;
    let mut changed = encoded(usize::try_from(count)? + 1);
    changed.extend(&section[reader.current_position()..]);
    changed.extend(more);
    Ok(changed)
}

fn start_function(how: AtStart, start_index: u32) -> Vec<u8> {
    let mut body = Function::new([]);
    match how {
        AtStart::Loop => {
            body.instruction(&Instruction::Loop(BlockType::Empty))
                .instruction(&Instruction::Br(0))
                .instruction(&Instruction::End);
        }
        AtStart::Recursion => {
            body.instruction(&Instruction::Call(start_index));
        }
        AtStart::Memory => {
            body.instruction(&Instruction::I32Const(40_000))
                .instruction(&Instruction::MemoryGrow(0))
                .instruction(&Instruction::Drop);
        }
        AtStart::Table => {
            let null = Instruction::RefNull(wasm_encoder::HeapType::FUNC);
            body.instruction(&null)
                .instruction(&Instruction::I32Const(100_000_000))
                .instruction(&Instruction::TableGrow(0));
            body.instruction(&Instruction::Drop);
        }
        AtStart::Trap => {
            body.instruction(&Instruction::Unreachable);
        }
    }
    body.instruction(&Instruction::End);
    let mut bytes = Vec::new();
    body.encode(&mut bytes);
    bytes
}

/// Returns a component that exports nothing at all.
#[must_use]
pub fn empty() -> Vec<u8> {
    Component::new().finish()
}

/// Returns a core module, which is not a component.
#[must_use]
pub fn module() -> Vec<u8> {
    Module::new().finish()
}

/// Returns a component with an import that no plugin gets.
#[must_use]
pub fn importing(name: &str) -> Vec<u8> {
    let mut types = ComponentTypeSection::new();
    types.instance(&InstanceType::new());
    let mut imports = ComponentImportSection::new();
    imports.import(name, ComponentTypeRef::Instance(0));
    let mut component = Component::new();
    component.section(&types).section(&imports);
    component.finish()
}

/// Returns a component whose only module has this many memories of this many pages each, and this
/// many tables; it is instantiated this many times.
#[must_use]
pub fn demanding(memories: u32, pages: u64, tables: u32, instances: u32) -> Vec<u8> {
    let (mut memory, mut table, mut list) =
        (MemorySection::new(), TableSection::new(), InstanceSection::new());
    for _ in 0..memories {
        memory.memory(MemoryType {
            minimum: pages,
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
    }
    for _ in 0..tables {
        table.table(TableType {
            element_type: RefType::FUNCREF,
            table64: false,
            minimum: 1,
            maximum: None,
            shared: false,
        });
    }
    for _ in 0..instances {
        list.instantiate::<_, &str>(0, []);
    }
    let mut module = Module::new();
    module.section(&table).section(&memory);
    let mut component = Component::new();
    component.section(&ModuleSection(&module)).section(&list);
    component.finish()
}

/// Returns a component with functions that take a compiler extremely long: many variables that are
/// all live across many branches.
#[must_use]
pub fn compile_bomb(functions: u32) -> Vec<u8> {
    of_functions(functions, &nasty())
}

/// Returns a component enlarged by about this many bytes: an additional module that nothing uses,
/// but that is compiled all the same.
///
/// # Errors
/// The bytes are not a component.
pub fn padded(component: &[u8], bytes: u32) -> anyhow::Result<Vec<u8>> {
    let large = large(bytes);
    // A component is a header and a list of sections, so another section may follow at the end.
    let header = component.get(..8).context("no component")?;
    anyhow::ensure!(header == &large[..8], "no component of this version");
    Ok([component, &large[8..]].concat())
}

/// Returns a component of about this many bytes, with many functions such as a compiler generates.
#[must_use]
pub fn large(bytes: u32) -> Vec<u8> {
    let mut body = Function::new([(1, ValType::I64)]);
    for step in 0..150 {
        body.instruction(&Instruction::LocalGet(0));
        body.instruction(&Instruction::I64Const(step * 77_777)).instruction(&Instruction::I64Add);
        body.instruction(&Instruction::LocalSet(0));
    }
    body.instruction(&Instruction::LocalGet(0)).instruction(&Instruction::End);
    let each = u32::try_from(body.byte_len()).unwrap_or(u32::MAX).max(1);
    of_functions(bytes / each, &body)
}

/// Returns a component whose only module has the same function many times.
fn of_functions(count: u32, body: &Function) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], [ValType::I64]);
    let (mut list, mut code) = (FunctionSection::new(), CodeSection::new());
    for _ in 0..count {
        list.function(0);
        code.function(body);
    }
    let mut module = Module::new();
    module.section(&types).section(&list).section(&code);
    let mut component = Component::new();
    component.section(&ModuleSection(&module));
    component.finish()
}

const VARIABLES: u32 = 500;

fn nasty() -> Function {
    let mut body = Function::new([(VARIABLES, ValType::I64)]);
    for step in 0..20_000 {
        let (from, to) = (step * 7 % VARIABLES, step * 13 % VARIABLES);
        body.instruction(&Instruction::LocalGet(from)).instruction(&Instruction::I32WrapI64);
        body.instruction(&Instruction::If(BlockType::Empty));
        body.instruction(&Instruction::LocalGet(from))
            .instruction(&Instruction::LocalGet(to))
            .instruction(&Instruction::I64Mul);
        body.instruction(&Instruction::LocalSet(to)).instruction(&Instruction::End);
    }
    body.instruction(&Instruction::LocalGet(0)).instruction(&Instruction::End);
    body
}

/// Returns the component with one additional import, which it does not use.
///
/// # Errors
/// The bytes are not a valid component.
pub fn importing_too(component: &[u8], name: &str) -> anyhow::Result<Vec<u8>> {
    use wasm_encoder::ComponentSection as _;

    // The type of the import follows all existing types.
    let index =
        wasmparser::Validator::new().validate_all(component)?.as_ref().component_type_count();
    let (mut types, mut imports) = (ComponentTypeSection::new(), ComponentImportSection::new());
    types.instance(&InstanceType::new());
    imports.import(name, ComponentTypeRef::Instance(index));
    let mut changed = component.to_vec();
    types.append_to_component(&mut changed);
    imports.append_to_component(&mut changed);
    Ok(changed)
}
