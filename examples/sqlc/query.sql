-- name: PlaceOrder :execrows
insert into orders (id, item, quantity) values ($1, $2, $3) on conflict (id) do nothing;

-- name: ImportOrders :copyfrom
insert into orders (id, item, quantity) values ($1, $2, $3);

-- name: AddStock :batchexec
insert into stock (item) values ($1) on conflict (item) do nothing;

-- name: Sold :one
select sold from stock where item = $1;

-- name: SetSold :exec
update stock set sold = $2 where item = $1;

-- name: OrdersByItem :many
select item, count(*) as orders, sum(quantity)::bigint as quantity from orders group by item order by item;
