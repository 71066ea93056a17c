-- checkout_raise_invalid: the one way to say that a request is wrong.

create or replace function checkout_raise_invalid(field text, problem text)
returns void
language plpgsql
stable
as $$
begin
  raise exception '% %', checkout_raise_invalid.field, checkout_raise_invalid.problem
    using errcode = 'OC005',
          detail = jsonb_build_object('field', checkout_raise_invalid.field, 'problem', checkout_raise_invalid.problem),
          hint = 'Correct the request and send it again.';
end;
$$;

revoke execute on function checkout_raise_invalid(text, text) from public;

comment on function checkout_raise_invalid(text, text) is 'Raises OC005 invalid_request, naming the field and what is wrong with it.';
