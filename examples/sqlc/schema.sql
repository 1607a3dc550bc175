create table orders (
    id text primary key,
    item text not null,
    quantity int not null check (quantity > 0),
    placed timestamptz not null default now()
);

create table stock (
    item text primary key,
    sold bigint not null default 0
);
