//! Functions in a few shapes, compiled by Cranelift, each in a module of its own so that each can be freed.

use crate::memory::{CodeMemory, Provider};
use crate::rows::{self, By};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, InstBuilder, MemFlags, StackSlotData, StackSlotKind, Type, Value, types,
};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::settings::{self, Configurable};
use cranelift_codegen::{CodegenError, Context};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module, ModuleError, default_libcall_names};
use framewalk_sframe::Row;
use std::sync::Arc;

const WORD: Type = types::I64;

/// Words that the wide host function takes after the first two; some lie on the stack.
pub const WIDE: usize = 8;

/// How a function is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Loops and a call.
    Plain,
    /// Keeps data on the stack.
    Slots,
    /// Keeps more values over the call than there are registers that calls preserve.
    Crowded,
    /// Gives its callee arguments on the stack.
    Wide,
    /// Returns in several places.
    Early,
    /// Calls nobody.
    Leaf,
}

impl Shape {
    /// Those that call.
    pub const CALLING: [Shape; 5] = [
        Shape::Plain,
        Shape::Slots,
        Shape::Crowded,
        Shape::Wide,
        Shape::Early,
    ];
}

/// The functions of the host that generated code calls: `extern "C" fn(task, level) -> i64`, and one that takes
/// [`WIDE`] words more.
#[derive(Debug, Clone, Copy)]
pub struct Host {
    /// The first.
    pub descend: *const u8,
    /// The second.
    pub descend_wide: *const u8,
}

/// A function that was compiled, and is where it shall run.
pub struct Compiled {
    module: JITModule,
    /// Its first address.
    pub start: u64,
    /// Its bytes of code.
    pub size: u32,
    /// Its unwind data.
    pub rows: Vec<Row>,
}

impl Compiled {
    /// Ends it.
    pub fn into_module(self) -> JITModule {
        self.module
    }
}

/// What is kept from function to function.
pub struct Generator {
    isa: OwnedTargetIsa,
    memory: &'static CodeMemory,
    host: Host,
    context: Context,
    builder: FunctionBuilderContext,
}

impl Generator {
    /// For this machine, without frame pointers as far as Cranelift can do without.
    pub fn new(memory: &'static CodeMemory, host: Host) -> Generator {
        let mut flags = settings::builder();
        for (name, value) in [
            ("preserve_frame_pointers", "false"),
            ("unwind_info", "true"),
            ("use_colocated_libcalls", "false"),
            ("is_pic", "false"),
            ("opt_level", "speed"),
        ] {
            flags.set(name, value).expect("a flag of Cranelift");
        }
        let isa = cranelift_native::builder().expect("a machine that Cranelift knows");
        Generator {
            isa: isa
                .finish(settings::Flags::new(flags))
                .expect("flags that fit"),
            memory,
            host,
            context: Context::new(),
            builder: FunctionBuilderContext::new(),
        }
    }

    /// Compiles a function that calls the host for `level`, where its shape calls at all.
    pub fn function(
        &mut self,
        name: &str,
        shape: Shape,
        level: i64,
        by: By,
    ) -> Result<Compiled, Box<ModuleError>> {
        let mut with = JITBuilder::with_isa(Arc::clone(&self.isa), default_libcall_names());
        with.symbol("descend", self.host.descend);
        with.symbol("descend_wide", self.host.descend_wide);
        with.memory_provider(Box::new(Provider::new(self.memory)));
        let mut module = JITModule::new(with);

        let mut signature = module.make_signature();
        signature.params.extend([AbiParam::new(WORD); 2]);
        signature.returns.push(AbiParam::new(WORD));
        let descend = module.declare_function("descend", Linkage::Import, &signature)?;
        let function = module.declare_function(name, Linkage::Export, &signature)?;
        self.context.clear();
        self.context.func.signature = signature.clone();
        signature.params.extend([AbiParam::new(WORD); WIDE]);
        let wide = module.declare_function("descend_wide", Linkage::Import, &signature)?;

        let mut building = Building {
            builder: FunctionBuilder::new(&mut self.context.func, &mut self.builder),
            module: &mut module,
            callee: if shape == Shape::Wide { wide } else { descend },
            level,
        };
        building.body(shape);
        building.builder.seal_all_blocks();
        building.builder.finalize();

        module.define_function(function, &mut self.context)?;
        module.finalize_definitions()?;
        let start = module.get_finalized_function(function) as u64;
        let unsaid = || ModuleError::Compilation(CodegenError::Unsupported("unwind data".into()));
        let compiled = self.context.compiled_code().ok_or_else(unsaid)?;
        Ok(Compiled {
            start,
            size: compiled.code_buffer().len() as u32,
            rows: rows::of(compiled, &*self.isa, start, by).ok_or_else(unsaid)?,
            module,
        })
    }
}

struct Building<'a> {
    builder: FunctionBuilder<'a>,
    module: &'a mut JITModule,
    callee: FuncId,
    level: i64,
}

impl Building<'_> {
    /// `fn(task, turns) -> i64`
    fn body(&mut self, shape: Shape) {
        let entry = self.builder.create_block();
        self.builder.append_block_params_for_function_params(entry);
        self.builder.switch_to_block(entry);
        let [task, turns] = *self.builder.block_params(entry) else {
            unreachable!("two parameters");
        };
        match shape {
            Shape::Leaf => {
                let sum = self.turn(turns, task);
                self.builder.ins().return_(&[sum]);
            }
            Shape::Plain => {
                let sum = self.turn(turns, task);
                let from = self.call(task, &[]);
                let sum = self.builder.ins().iadd(sum, from);
                let sum = self.turn(turns, sum);
                self.builder.ins().return_(&[sum]);
            }
            Shape::Slots => self.slots(task, turns),
            Shape::Crowded => self.crowded(task, turns),
            Shape::Wide => {
                let first = self.turn(turns, task);
                let more: Vec<Value> = (0..WIDE as i64)
                    .map(|n| self.builder.ins().iadd_imm(first, n))
                    .collect();
                let from = self.call(task, &more);
                let sum = self.turn(turns, from);
                self.builder.ins().return_(&[sum]);
            }
            Shape::Early => self.early(task, turns),
        }
    }

    fn slots(&mut self, task: Value, turns: Value) {
        let data = StackSlotData::new(StackSlotKind::ExplicitSlot, 200, 3);
        let slot = self.builder.create_sized_stack_slot(data);
        let sum = self.turn(turns, task);
        self.builder.ins().stack_store(sum, slot, 64);
        let address = self.builder.ins().stack_addr(WORD, slot, 0);
        self.builder
            .ins()
            .store(MemFlags::trusted(), task, address, 128);
        let from = self.call(task, &[]);
        let kept = self.builder.ins().stack_load(WORD, slot, 64);
        let sum = self.builder.ins().iadd(from, kept);
        let sum = self.turn(turns, sum);
        self.builder.ins().return_(&[sum]);
    }

    fn crowded(&mut self, task: Value, turns: Value) {
        let mut values = vec![self.turn(turns, task)];
        for n in 1..14 {
            let last = values[n - 1];
            let next = self.builder.ins().imul_imm(last, 0x9e37 + n as i64);
            values.push(self.builder.ins().bxor(next, turns));
        }
        let mut sum = self.call(task, &[]);
        sum = self.turn(turns, sum);
        for value in values {
            sum = self.builder.ins().bxor(sum, value);
            sum = self.builder.ins().rotl_imm(sum, 7);
        }
        self.builder.ins().return_(&[sum]);
    }

    /// Half of the calls return before the second loop.
    fn early(&mut self, task: Value, turns: Value) {
        let [soon, late] = [(); 2].map(|()| self.builder.create_block());
        let first = self.turn(turns, task);
        let from = self.call(task, &[]);
        let sum = self.builder.ins().bxor(first, from);
        let odd = self.builder.ins().band_imm(sum, 1);
        let is_odd = self.builder.ins().icmp_imm(IntCC::NotEqual, odd, 0);
        self.builder.ins().brif(is_odd, soon, &[], late, &[]);
        self.builder.switch_to_block(soon);
        self.builder.ins().return_(&[from]);
        self.builder.switch_to_block(late);
        let sum = self.turn(turns, sum);
        self.builder.ins().return_(&[sum]);
    }

    /// A loop of so many turns, at least one.
    fn turn(&mut self, turns: Value, begin: Value) -> Value {
        let [head, end] = [(); 2].map(|()| self.builder.create_block());
        let left = self.builder.append_block_param(head, WORD);
        let sum = self.builder.append_block_param(head, WORD);
        let result = self.builder.append_block_param(end, WORD);
        self.builder.ins().jump(head, &[turns.into(), begin.into()]);
        self.builder.switch_to_block(head);
        let mixed = self.builder.ins().imul_imm(sum, 0x5851_f42d);
        let next = self.builder.ins().iadd(mixed, left);
        let less = self.builder.ins().iadd_imm(left, -1);
        let again = [less.into(), next.into()];
        self.builder
            .ins()
            .brif(less, head, &again, end, &[next.into()]);
        self.builder.switch_to_block(end);
        result
    }

    /// Calls the host.
    fn call(&mut self, task: Value, more: &[Value]) -> Value {
        let callee = self
            .module
            .declare_func_in_func(self.callee, self.builder.func);
        let level = self.builder.ins().iconst(WORD, self.level);
        let mut arguments = vec![task, level];
        arguments.extend(more);
        let call = self.builder.ins().call(callee, &arguments);
        self.builder.inst_results(call)[0]
    }
}
