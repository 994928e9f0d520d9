//! The attribute macros of `plugwasm-pdk`. They are documented there.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::{format_ident, quote};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    parse_macro_input, Error, Expr, ExprLit, FnArg, ForeignItem, ForeignItemFn, ItemFn,
    ItemForeignMod, Lit, LitStr, ReturnType,
};

/// Export a function of the plugin. See the documentation of `plugwasm-pdk`.
#[proc_macro_attribute]
pub fn plugin_fn(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as ItemFn);
    let exported = if attribute.is_empty() {
        None
    } else {
        Some(parse_macro_input!(attribute as LitStr).value())
    };
    expand_plugin_fn(&function, exported.as_deref())
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}

fn expand_plugin_fn(function: &ItemFn, exported: Option<&str>) -> syn::Result<Tokens> {
    let signature = &function.sig;
    if let Some(asyncness) = signature.asyncness {
        return Err(Error::new(asyncness.span(), "a plugin function cannot be async"));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new(signature.generics.span(), "a plugin function cannot be generic"));
    }
    if signature.inputs.len() > 1 {
        return Err(Error::new(
            signature.inputs.span(),
            "a plugin function takes the input and nothing else: use `Json<T>` for several values",
        ));
    }
    if let Some(FnArg::Receiver(receiver)) = signature.inputs.first() {
        return Err(Error::new(receiver.span(), "a plugin function is no method"));
    }
    if let ReturnType::Default = signature.output {
        return Err(Error::new(
            signature.span(),
            "a plugin function returns a `FnResult`, e.g. `FnResult<()>`",
        ));
    }
    let name = &signature.ident;
    let own = name.unraw().to_string();
    let symbol = format_ident!("__plugwasm_{}", own);
    let exported = exported.unwrap_or(&own);
    let call = if signature.inputs.is_empty() {
        quote!(::plugwasm_pdk::export::run0(#name))
    } else {
        quote!(::plugwasm_pdk::export::run1(#name))
    };
    Ok(quote! {
        #function

        #[doc(hidden)]
        #[export_name = #exported]
        pub extern "C" fn #symbol() -> i32 {
            #call
        }
    })
}

/// Import functions of the host. See the documentation of `plugwasm-pdk`.
#[proc_macro_attribute]
pub fn host_fn(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let namespace = if attribute.is_empty() {
        LitStr::new("extism:host/user", proc_macro2::Span::call_site())
    } else {
        parse_macro_input!(attribute as LitStr)
    };
    let block = parse_macro_input!(item as ItemForeignMod);
    let functions = block.items.iter().map(|item| match item {
        ForeignItem::Fn(function) => expand_host_fn(&namespace, function),
        other => Err(Error::new(other.span(), "only functions can be imported")),
    });
    functions
        .collect::<syn::Result<Tokens>>()
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}

fn expand_host_fn(namespace: &LitStr, function: &ForeignItemFn) -> syn::Result<Tokens> {
    let (link_names, attributes): (Vec<_>, Vec<_>) =
        function.attrs.iter().partition(|attribute| attribute.path().is_ident("link_name"));
    let visibility = &function.vis;
    let name = &function.sig.ident;
    let imported = match link_names.first() {
        None => name.unraw().to_string(),
        Some(attribute) => match &attribute.meta.require_name_value()?.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => text.value(),
            other => return Err(Error::new(other.span(), "the name is a string")),
        },
    };
    let (mut names, mut types) = (Vec::new(), Vec::new());
    for (number, input) in function.sig.inputs.iter().enumerate() {
        match input {
            FnArg::Typed(argument) => types.push(&*argument.ty),
            FnArg::Receiver(receiver) => {
                return Err(Error::new(receiver.span(), "a host function is no method"))
            }
        }
        names.push(format_ident!("argument_{}", number));
    }
    let unit: syn::Type = syn::parse_quote!(());
    let output = match &function.sig.output {
        ReturnType::Default => &unit,
        ReturnType::Type(_, output) => output,
    };
    Ok(quote! {
        #(#attributes)*
        #visibility fn #name(#(#names: #types),*) -> ::plugwasm_pdk::Result<#output> {
            #[link(wasm_import_module = #namespace)]
            extern "C" {
                #[link_name = #imported]
                fn import(
                    #(#names: <#types as ::plugwasm_pdk::import::Argument>::Value),*
                ) -> <#output as ::plugwasm_pdk::import::Returned>::Value;
            }
            #(let #names = ::plugwasm_pdk::import::Argument::pass(#names)?;)*
            // SAFETY: the host checks the type when the plugin is loaded.
            let value = unsafe { import(#(::plugwasm_pdk::import::Passed::value(&#names)),*) };
            <#output as ::plugwasm_pdk::import::Returned>::receive(value)
        }
    })
}

/// Export a function that other modules of the same plugin import. See the documentation of
/// `plugwasm-pdk`.
#[proc_macro_attribute]
pub fn shared_fn(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as ItemFn);
    let attribute = Tokens::from(attribute);
    if !attribute.is_empty() {
        return Error::new(attribute.span(), "shared_fn takes no arguments")
            .to_compile_error()
            .into();
    }
    expand_shared_fn(&function).unwrap_or_else(|error| error.to_compile_error()).into()
}

fn expand_shared_fn(function: &ItemFn) -> syn::Result<Tokens> {
    let name = &function.sig.ident;
    let exported = name.unraw().to_string();
    let symbol = format_ident!("__plugwasm_{}", exported);
    let (mut names, mut types) = (Vec::new(), Vec::new());
    for (number, input) in function.sig.inputs.iter().enumerate() {
        match input {
            FnArg::Typed(argument) => types.push(&*argument.ty),
            FnArg::Receiver(receiver) => {
                return Err(Error::new(receiver.span(), "a shared function is no method"))
            }
        }
        names.push(format_ident!("argument_{}", number));
    }
    let output = match &function.sig.output {
        ReturnType::Default => {
            return Err(Error::new(
                function.sig.span(),
                "a shared function returns a `SharedFnResult`, e.g. `SharedFnResult<()>`",
            ))
        }
        ReturnType::Type(_, output) => output,
    };
    Ok(quote! {
        #function

        #[doc(hidden)]
        #[export_name = #exported]
        pub extern "C" fn #symbol(
            #(#names: <#types as ::plugwasm_pdk::import::Returned>::Value),*
        ) -> <#output as ::plugwasm_pdk::import::SharedResult>::Value {
            ::plugwasm_pdk::import::SharedResult::answer((|| {
                #name(#(<#types as ::plugwasm_pdk::import::Returned>::receive(#names)?),*)
            })())
        }
    })
}
